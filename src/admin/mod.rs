//! What operators ask: four-letter words. May read every core's figures; nothing reads `admin`.

pub mod words;
