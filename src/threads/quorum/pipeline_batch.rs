//! What the pipeline is told by this thread: gathered, and passed on before anything is sent to another server. So it hears
//! of a commit before anybody else does: who was told of it elsewhere, and syncs and reads here, finds it.

use crossbeam_channel::Sender;

use crate::mail::ToPipeline;
use crate::threads::pipeline::PipelineMail;

/// Mail for the pipeline, of one turn.
#[derive(Debug)]
pub struct PipelineBatch {
    to: Sender<PipelineMail>,
    gathered: Vec<ToPipeline>,
}

/// The pipeline has been told all that there was. Who sends needs it; it is good for what was gathered before.
#[derive(Debug)]
pub struct PipelineTold(());

impl PipelineBatch {
    /// To this thread.
    pub fn new(to: Sender<PipelineMail>) -> PipelineBatch {
        PipelineBatch { to, gathered: Vec::new() }
    }

    /// Something more.
    pub fn push(&mut self, mail: ToPipeline) {
        self.gathered.push(mail);
    }

    /// Tells it all.
    pub fn pass_on(&mut self) -> PipelineTold {
        if !self.gathered.is_empty() {
            // After its end nobody waits for this.
            let _ = self.to.send(PipelineMail::Core(std::mem::take(&mut self.gathered)));
        }
        PipelineTold(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    #[test]
    fn who_may_send_has_told_the_pipeline_all_that_was_gathered() {
        let (to, from) = unbounded();
        let mut mail = PipelineBatch::new(to);
        let _told = mail.pass_on();
        assert!(from.try_recv().is_err(), "nothing wakes nobody");
        mail.push(ToPipeline::Synced);
        mail.push(ToPipeline::CatchUp);
        let _told = mail.pass_on();
        let Ok(PipelineMail::Core(told)) = from.try_recv() else { panic!("it is told") };
        assert!(matches!(told[..], [ToPipeline::Synced, ToPipeline::CatchUp]));
        let _told = mail.pass_on();
        assert!(from.try_recv().is_err(), "once");
    }
}
