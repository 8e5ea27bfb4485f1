//! Bytes as one frame: a connect request, or a request that a server with a session is asked. What can be decoded is
//! encoded and decoded again, and comes out the same; the pipeline answers it once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rookeeper::ops::{decode, decode_connect, encode};
use rookeeper_fuzz::trial::Ask;

fuzz_target!(|frame: &[u8]| {
    if let Ok(connect) = decode_connect(frame) {
        assert_eq!(decode_connect(&encode::connect(&connect)).as_ref(), Ok(&connect));
        Ask::fresh().connect(connect);
    }
    let Ok(request) = decode(frame) else { return };
    if !request.op.is_malformed() {
        assert_eq!(decode(&encode::request(&request)).as_ref(), Ok(&request));
    }
    Ask::fresh().ask(request);
});
