//! A record that the disk refused. The kernel says so to the sync that wrote it, once, and then has it in memory as if it
//! were on the disk: a server that starts again reads it, and whoever is told of it finds it after a power cut, too.

use std::path::Path;

use rookeeper::client::{Client, CreateMode, Error};
use rookeeper::records::Acl;

use crate::disk::Kept;
use crate::random::Random;
use crate::server::{Server, Setting};
use crate::trial::LOG_FAILED;
use crate::volume::{FileSystem, Volume};
use crate::writers::connect;

/// What the disk refuses: it is nowhere else.
const MARK: &[u8; 16] = b"refused, once...";
/// A value of nothing else. Most of it is in pages of the kernel's that no later record shares, which would be written again
/// with that one.
fn refused() -> Vec<u8> {
    MARK.repeat(1_500)
}

/// What was found of the record by those who were told before the power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    OfIt,
    OfNone,
    /// The file system takes nothing more, so that no server can start before the power cut.
    Nothing,
}

/// A server of its own, on such a file system, with a port from this one on.
pub fn run(file_system: FileSystem, is_mapped: bool, within: &Path, port: u16) -> Result<Told, String> {
    let sector_bytes = *file_system.sector_bytes().last().expect("a disk has sectors");
    let setting =
        Setting { file_system, sector_bytes, is_mapped, pre_alloc_kib: 1_024, has_log_disk: true, snap_count: 100_000 };
    let address = format!("127.0.0.1:{port}");
    let members = [format!("127.0.0.1:{}:{};{address}", port + 1, port + 2)];
    let mut server = Server::make(within, 1, &setting, &members)?;
    let done = go_through(&mut server, &address);
    done.map_err(|wrong| format!("{}{setting:?}: {wrong}", server.said()))
}

fn go_through(server: &mut Server, address: &str) -> Result<Told, String> {
    let told = |error: Error| error.to_string();
    let create = |client: &Client, path, value| client.create(path, Some(value), &Acl::open(), CreateMode::default());
    let client = connect(address).map_err(told)?;
    create(&client, "/before", b"acknowledged").map_err(told)?;
    server.log_volume().disk.fail_write_of(MARK);
    if create(&client, "/refused", &refused()).is_ok() {
        return Err("a write was acknowledged that is not on the disk".into());
    }
    drop(client);
    let status = server.wait_for_end()?;
    if status.code() != Some(LOG_FAILED) {
        return Err(format!("the server ended with {status} and not with code {LOG_FAILED}"));
    }
    if !server.volumes.iter().all(Volume::takes_files) {
        return Ok(Told::Nothing);
    }
    // A start writes a snapshot, which would be durable by itself.
    server.volumes[0].disk.fail_write_of(MARK);
    server.start()?;
    let before = find(address)?;
    server.lose_power(Kept::Nothing, &mut Random::new(0));
    server.power_on(|_| ())?;
    match (before, find(address)?) {
        (true, false) => Err("what a client was told of before the power cut is lost".into()),
        (true, true) => Ok(Told::OfIt),
        (false, _) => Ok(Told::OfNone),
    }
}

/// Whether the record is there. What was acknowledged must be.
fn find(address: &str) -> Result<bool, String> {
    let client = connect(address).map_err(|error| error.to_string())?;
    let value = |path| match client.data(path, false) {
        Ok((value, _)) => Ok(value),
        Err(error) if error.is_no_node() => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    match value("/before")? {
        Some(value) if value == b"acknowledged" => {}
        other => return Err(format!("what was acknowledged is lost: there is {other:?}")),
    }
    match value("/refused")? {
        Some(value) if value == refused() => Ok(true),
        None => Ok(false),
        other => Err(format!("a record is there in part: {other:?}")),
    }
}
