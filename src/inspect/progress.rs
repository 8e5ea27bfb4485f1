//! Progress bars on standard error, where it is a terminal; nothing elsewhere.

use std::io::Read;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over this many bytes.
pub fn bytes(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
    bar.set_style(style.expect("the template is well formed"));
    bar.set_message(what.to_owned());
    bar
}

/// A bar over all the bytes of these files.
pub fn files<'a>(what: &str, paths: impl Iterator<Item = &'a Path>) -> ProgressBar {
    bytes(what, paths.map(|path| std::fs::metadata(path).map_or(0, |file| file.len())).sum())
}

/// A bar over the reading of a file, and the reader that moves it.
pub fn file(path: &Path) -> std::io::Result<(ProgressBar, Box<dyn Read + Send>)> {
    let file = std::fs::File::open(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bar = bytes(&name, file.metadata()?.len());
    let reader = bar.wrap_read(file);
    Ok((bar, Box::new(reader)))
}
