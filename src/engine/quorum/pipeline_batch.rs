//! What the pipeline is told by a member: gathered, and passed on before anything is sent to another server. So it hears of a
//! commit before anybody else does: who was told of it elsewhere, and syncs and reads here, finds it.

use crate::mail::ToPipeline;

/// Mail for the pipeline, of one turn.
#[derive(Debug, Default)]
pub struct PipelineBatch {
    gathered: Vec<ToPipeline>,
}

/// The pipeline has been told all that there was. Who sends needs it; it is good for what was gathered before.
#[derive(Debug)]
pub struct PipelineTold(());

impl PipelineBatch {
    /// Something more.
    pub fn push(&mut self, mail: ToPipeline) {
        self.gathered.push(mail);
    }

    /// Tells it all, by a function that leaves it in the pipeline's queue.
    pub fn pass_on(&mut self, tell: impl FnOnce(Vec<ToPipeline>)) -> PipelineTold {
        if !self.gathered.is_empty() {
            tell(std::mem::take(&mut self.gathered));
        }
        PipelineTold(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_send_has_told_the_pipeline_all_that_was_gathered() {
        let mut told = Vec::new();
        let mut batch = PipelineBatch::default();
        let _told = batch.pass_on(|mail| told.push(mail));
        assert!(told.is_empty(), "nothing wakes nobody");
        batch.push(ToPipeline::Synced);
        batch.push(ToPipeline::CatchUp);
        let _told = batch.pass_on(|mail| told.push(mail));
        assert!(matches!(told[..], [ref mail] if matches!(mail[..], [ToPipeline::Synced, ToPipeline::CatchUp])));
        let _told = batch.pass_on(|mail| told.push(mail));
        assert_eq!(told.len(), 1, "once");
    }
}
