//! Shim.
use std::collections::BTreeMap;
use super::notification::Hello;
use super::*;
#[derive(Debug, Default)]
struct To { link: Option<LinkId>, dialing: bool, next: Option<Vec<u8>>, last: Option<Vec<u8>>, busy: bool, addresses: Vec<PeerAddress>, retry_ms: i64 }
#[derive(Debug)]
pub struct Links { my_id: ServerId, hello: Vec<u8>, to: BTreeMap<ServerId, To>, effects: Vec<Effect> }
impl Links {
    pub fn new(my_id: ServerId, hello: Vec<u8>) -> Links { Links { my_id, hello, to: BTreeMap::new(), effects: Vec::new() } }
    pub fn send(&mut self, to: ServerId, frame: Vec<u8>, addresses: &[PeerAddress], now_ms: i64) {
        self.to.entry(to).or_default().next = Some(frame);
        self.connect(to, addresses, now_ms);
        self.push(to);
    }
    fn push(&mut self, to: ServerId) {
        let Some(t) = self.to.get_mut(&to) else { return };
        let Some(link) = t.link else { return };
        if t.busy { return }
        if let Some(bytes) = t.next.take() {
            t.busy = true; t.last = Some(bytes.clone());
            self.effects.push(Effect::SendElection { link, bytes });
        }
    }
    pub fn connect(&mut self, to: ServerId, addresses: &[PeerAddress], now_ms: i64) {
        let t = self.to.entry(to).or_default();
        t.addresses = addresses.to_vec();
        if t.link.is_none() && !t.dialing && now_ms >= t.retry_ms {
            t.dialing = true;
            self.effects.push(Effect::DialElection { server: to, addresses: t.addresses.clone() });
        }
    }
    fn up(&mut self, link: LinkId, server: ServerId) {
        let t = self.to.entry(server).or_default();
        t.busy = false;
        if let Some(old) = t.link.replace(link) { self.effects.push(Effect::Close { link: old, why: "replaced".into() }); }
        if t.next.is_none() { t.next = t.last.clone(); }
        self.push(server);
    }
    pub fn on_hello(&mut self, link: LinkId, hello: &Hello, now_ms: i64) {
        let server = hello.server;
        if server > self.my_id { self.up(link, server); return }
        self.effects.push(Effect::Close { link, why: "smaller".into() });
        if server < self.my_id {
            let t = self.to.entry(server).or_default();
            if let Some(old) = t.link.take() { self.effects.push(Effect::Close { link: old, why: "replaced".into() }); }
            t.retry_ms = 0;
            let a = t.addresses.clone();
            self.connect(server, &a, now_ms);
        }
    }
    pub fn on_dialed(&mut self, link: LinkId, server: ServerId) {
        self.effects.push(Effect::SendElection { link, bytes: self.hello.clone() });
        if let Some(t) = self.to.get_mut(&server) { t.dialing = false; }
        if server > self.my_id { self.effects.push(Effect::Close { link, why: "larger dials back".into() }); return }
        self.up(link, server);
    }
    pub fn on_undialed(&mut self, server: ServerId, now_ms: i64) { if let Some(t) = self.to.get_mut(&server) { t.dialing = false; t.retry_ms = now_ms + 100; } }
    pub fn on_flushed(&mut self, link: LinkId) {
        let Some(server) = self.server_of(link) else { return };
        if let Some(t) = self.to.get_mut(&server) { t.busy = false; }
        self.push(server);
    }
    pub fn on_closed(&mut self, link: LinkId) { for t in self.to.values_mut() { if t.link == Some(link) { t.link = None; t.busy = false; } } }
    pub fn server_of(&self, link: LinkId) -> Option<ServerId> { self.to.iter().find(|(_, t)| t.link == Some(link)).map(|(s, _)| *s) }
    pub fn take_effects(&mut self) -> Vec<Effect> { std::mem::take(&mut self.effects) }
    pub fn next_deadline_ms(&self) -> i64 { i64::MAX }
    pub fn tick(&mut self, _: i64) {}
}
