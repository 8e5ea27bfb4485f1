//! Bytes as what a server sends on the election port, cut into segments in any way. Whatever the cuts, the same messages
//! come of it; a message is written and read again, and comes out the same; so does a list of members in it, which also
//! says what a quorum is.
//!
//! Input: who dialled, number of cuts, the lengths of the segments (used over and over), the stream.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use rookeeper::config::Members;
use rookeeper::ids::ServerId;
use rookeeper::quorum::notification::{ElectionDecoder, Hello, Notification};
use rookeeper_fuzz::cut;

struct Link {
    decoder: ElectionDecoder,
    hello_is_next: bool,
    heard: Vec<String>,
    end: Option<String>,
}

impl Link {
    fn new(accepted: bool) -> Link {
        Link { decoder: ElectionDecoder::new(), hello_is_next: accepted, heard: Vec::new(), end: None }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
        while self.end.is_none() {
            match self.next() {
                Ok(Some(heard)) => self.heard.push(heard),
                Ok(None) => return,
                Err(why) => self.end = Some(why),
            }
        }
    }

    fn next(&mut self) -> Result<Option<String>, String> {
        if self.hello_is_next {
            let Some(hello) = self.decoder.next_hello().map_err(|error| error.to_string())? else { return Ok(None) };
            self.hello_is_next = false;
            check_hello(&hello);
            return Ok(Some(format!("{hello:?}")));
        }
        let notification = self.decoder.next_notification().map_err(|error| error.to_string())?;
        let Some(notification) = notification else { return Ok(None) };
        if let Ok(notification) = &notification {
            check_notification(notification);
        }
        Ok(Some(format!("{notification:?}")))
    }
}

/// Addresses of IPv6 are written in one form only.
fn check_hello(hello: &Hello) {
    if hello.addresses.is_empty() {
        return;
    }
    let bytes = Hello::encode(hello.server, &hello.addresses, true);
    let mut decoder = ElectionDecoder::new();
    decoder.feed(&bytes);
    let again = decoder.next_hello().expect("what is written can be read").expect("it is whole");
    assert_eq!(Hello::encode(again.server, &again.addresses, true), bytes);
}

fn check_notification(notification: &Notification) {
    let mut frame = Vec::new();
    notification.encode(&mut frame);
    let mut decoder = ElectionDecoder::new();
    decoder.feed(&frame);
    let again = decoder.next_notification().expect("what is written can be read").expect("it is whole");
    let again = again.expect("what is written can be read");
    assert_eq!(again, Notification { version: 2, ..notification.clone() });
    if let Some(Ok(members)) = notification.config.as_deref().map(Members::parse_text) {
        check_members(&members);
    }
}

fn check_members(members: &Members) {
    let text = members.to_string();
    let again = Members::parse_text(text.as_bytes()).expect("what is written can be read");
    assert_eq!(again.to_string(), text);
    let all: BTreeSet<ServerId> = members.servers.keys().copied().map(ServerId).collect();
    assert!(!members.is_quorum(&BTreeSet::new()));
    assert_eq!(members.is_quorum(&all), again.is_quorum(&all));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&who, rest)) = bytes.split_first() else { return };
    let (stream, pieces) = cut(rest);
    let mut whole = Link::new(who % 2 == 0);
    whole.read(stream);
    let mut cut = Link::new(who % 2 == 0);
    pieces.into_iter().for_each(|piece| cut.read(piece));
    assert_eq!(whole.heard, cut.heard);
    assert_eq!(whole.end, cut.end);
});
