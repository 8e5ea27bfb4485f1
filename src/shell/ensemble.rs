//! Commands on the ensemble: its configuration, and the shell's version.

use serde_json::json;

use super::Shell;
use super::answer::{Answer, Failure};
use super::table;
use crate::admin::version as own_version;
use crate::arguments::Args;

pub(super) fn version(_shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    if args.words.len() > 1 {
        return Err(Failure::Usage(table::find("version").expect("the table has it")));
    }
    let full = own_version::full();
    Ok(Answer::out(format!("ZooKeeper CLI version: {full}"), json!({ "version": full })))
}

pub(super) fn config(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let (data, stat) = shell.client()?.config(args.has("w"))?;
    let text = data.map_or("null".into(), |data| String::from_utf8_lossy(&data).into_owned());
    let (version, clients) = client_addresses(&text);
    let shown = if args.has("c") { format!("{version} {}", clients.join(",")) } else { text.clone() };
    let json = json!({ "config": text, "version": version, "clients": clients });
    Ok(Answer::out(shown, json).with_stat(args.has("s").then_some(&stat)))
}

/// The version of a configuration and each server's client address, empty where it has none.
fn client_addresses(config: &str) -> (String, Vec<String>) {
    let mut version = String::new();
    let mut clients = Vec::new();
    for (key, value) in config.lines().filter_map(|line| line.split_once('=')) {
        let (key, value) = (key.trim(), value.trim());
        if key == "version" {
            version = value.to_owned();
        } else if key.starts_with("server.") {
            // Behind a second one is where clients connect by TLS.
            let client = value.split(';').nth(1).unwrap_or_default().trim();
            let is_port = !client.is_empty() && client.bytes().all(|byte| byte.is_ascii_digit());
            clients.push(if is_port { format!("0.0.0.0:{client}") } else { client.to_owned() });
        }
    }
    (version, clients)
}

pub(super) fn reconfig(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let [file, members, add, remove] = ["file", "members", "add", "remove"].map(|name| args.value(name));
    let (whole, step) = (file.is_some() || members.is_some(), add.is_some() || remove.is_some());
    if !whole && !step {
        return Err(Failure::Usage(table::find("reconfig").expect("the table has it")));
    }
    let version = args.value("v").map(|text| i64::from_str_radix(text, 16)).transpose();
    let version = version.map_err(|_| Failure::text("-v must be followed by a long (configuration version)"))?;
    if whole && step {
        return Err(Failure::text(
            "Can't use -file or -members together with -add or -remove (mixing incremental and non-incremental modes \
             is not allowed)",
        ));
    }
    if file.is_some() && members.is_some() {
        return Err(Failure::text("Can't use -file and -members together (conflicting non-incremental modes)"));
    }
    let lower = |text: Option<&str>| text.map(str::to_lowercase);
    let members = file.map(members_of_file).transpose()?.or(lower(members));
    let (joining, leaving) = (lower(add), lower(remove));
    let (config, stat) =
        shell.client()?.reconfig(joining.as_deref(), leaving.as_deref(), members.as_deref(), version.unwrap_or(-1))?;
    let config = String::from_utf8_lossy(&config).into_owned();
    let answer = Answer::out(format!("Committed new configuration:\n{config}"), json!({ "config": config }));
    Ok(answer.with_stat(args.has("s").then_some(&stat)))
}

/// The server lines of a dynamic configuration file; the leader checks what they say.
fn members_of_file(path: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::text(format!("Error processing {path}: {e}")))?;
    let servers: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("server.")).collect();
    if servers.is_empty() {
        return Err(Failure::text(format!("Error processing {path}: it has no line that begins with server.")));
    }
    Ok(servers.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_addresses_are_found_and_missing_ones_are_empty() {
        let config = "server.1=a:2:3:participant\nserver.2=b:2:3:observer;2181\nserver.3=c:2:3;0.0.0.0:9;7\nserver.4=d:2:3;;7\n\
                      version=1a";
        let (version, clients) = client_addresses(config);
        assert_eq!((version.as_str(), clients.join(",")), ("1a", ",0.0.0.0:2181,0.0.0.0:9,".into()));
    }
}
