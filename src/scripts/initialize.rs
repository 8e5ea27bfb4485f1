//! `zkServer-initialize.sh`: makes the folders of a new server, its myid, and the mark that its empty database is meant.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::inspect::{Failure, Folders, GOOD, Outcome};
use crate::scripts::{UNEXPECTED, unexpected};
use crate::sys::files::{self, Files};

/// What the tool was told.
#[derive(Debug, Default)]
struct Given {
    config: PathBuf,
    my_id: Option<String>,
    force: bool,
}

/// The tool. `name` is what it was called; `config`, the file it takes unless another is given.
pub fn initialize(name: &str, config: &Path, args: &[String], out: &mut dyn Write) -> Outcome {
    let mut given = Given { config: config.to_owned(), ..Given::default() };
    if let Err(unknown) = understand(args, &mut given) {
        if let Some(option) = unknown {
            writeln!(out, "Unknown option: {option}")?;
        }
        print_usage(name, &given.config, out)?;
        return Ok(UNEXPECTED);
    }
    let shown = given.config.display();
    if !given.config.exists() {
        writeln!(out, "Unable to find config file at {shown}")?;
        return Ok(UNEXPECTED);
    }
    let Ok(folders) = Folders::of_config(&given.config) else {
        writeln!(out, "Unable to determine dataDir from {shown}")?;
        return Ok(UNEXPECTED);
    };
    if given.force {
        writeln!(out, "Force enabled, data/txnlog directories will be re-initialized")?;
    }
    let named = [("data", Some(&folders.data)), ("txnlog", folders.logs.as_ref())];
    for (kind, dir) in named.iter().filter_map(|(kind, dir)| dir.map(|dir| (kind, dir))) {
        let data = dir.join("version-2");
        if data.is_dir() && !given.force {
            let what = format!("ZooKeeper {kind} directory already exists at {}", dir.display());
            writeln!(out, "{what} (or use --force to force re-initialization)")?;
            return Ok(UNEXPECTED);
        }
        // Apache's script pulls the data from under a server that runs.
        if data.is_dir() && files::lock_dir(&data).is_ok_and(|lock| lock.is_none()) {
            return Err(unexpected(format!("{}: a server is running on it; stop it first", data.display())));
        }
    }
    for dir in named.iter().filter_map(|(_, dir)| *dir) {
        make_anew(dir).map_err(|error| unexpected(format!("{}: {error}", dir.display())))?;
    }
    let my_id = folders.data.join("myid");
    match &given.my_id {
        Some(id) => {
            writeln!(out, "Using myid of {id}")?;
            fs::write(&my_id, format!("{id}\n")).map_err(at(&my_id))?;
        }
        None => {
            let what = "No myid provided, be sure to specify it in";
            writeln!(out, "{what} {} if using non-standalone", my_id.display())?;
        }
    }
    // Apache's script knows dataDir only; a server looks beside its logs.
    for dir in named.iter().filter_map(|(_, dir)| *dir) {
        let mark = dir.join("initialize");
        fs::write(&mark, b"").map_err(at(&mark))?;
    }
    Ok(GOOD)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| unexpected(format!("{}: {error}", path.display()))
}

/// An error is the option that is not known; none, if help was asked for.
fn understand(args: &[String], given: &mut Given) -> Result<(), Option<String>> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, value) = arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value)));
        let mut value = || value.map(str::to_owned).or_else(|| args.next().cloned()).filter(|value| !value.is_empty());
        match name {
            "--configfile" => given.config = value().ok_or_else(|| Some(arg.clone()))?.into(),
            "--myid" => given.my_id = Some(value().ok_or_else(|| Some(arg.clone()))?),
            "--force" => given.force = true,
            "-h" | "--help" => return Err(None),
            _ => return Err(Some(arg.clone())),
        }
    }
    Ok(())
}

fn print_usage(name: &str, config: &Path, out: &mut dyn Write) -> io::Result<()> {
    write!(
        out,
        "usage: {name} <parameters>
  Optional parameters:
     -h                                                    Display this message
     --help                                                Display this message
     --configfile={:<40} ZooKeeper config file
     --myid=#                                              Set the myid to be used, if any (1-255)
     --force                                               Force creation of the data/txnlog dirs
",
        config.display().to_string()
    )
}

/// Removes what a server keeps, nothing else, and makes the folder for it.
fn make_anew(dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_file(dir.join("myid")))?;
    gone(fs::remove_dir_all(dir.join("version-2")))?;
    Files::host().create_dirs(&dir.join("version-2"))
}
