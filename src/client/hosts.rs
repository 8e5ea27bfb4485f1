//! Connect strings: `host:port,[::1]:port,host/chroot`, as every ZooKeeper client takes them. Pure.

use super::error::Error;
use crate::state::path;

/// The port where none is given.
const DEFAULT_PORT: u16 = 2181;

/// What a connect string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Name or address, and port; never empty.
    pub servers: Vec<(String, u16)>,
    /// The node that is this client's root; empty for none.
    pub chroot: String,
}

impl Hosts {
    /// Takes a connect string apart.
    pub fn parse(text: &str) -> Result<Hosts, Error> {
        let (list, chroot) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        if let Some(why) = Some(chroot).filter(|chroot| !chroot.is_empty()).and_then(path::problem) {
            return Err(Error::Malformed(why));
        }
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let servers = names.map(server).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(Error::Malformed(format!(
                "\"{text}\" names no server: give HOST:PORT, or several with commas"
            )));
        }
        let chroot = if chroot == "/" { "" } else { chroot };
        Ok(Hosts { servers, chroot: chroot.to_owned() })
    }

    /// The path as servers know it.
    pub fn full(&self, path: &str) -> String {
        match path {
            "/" if !self.chroot.is_empty() => self.chroot.clone(),
            _ => format!("{}{path}", self.chroot),
        }
    }

    /// The path as this client knows it.
    pub fn short(&self, path: &str) -> String {
        match path.strip_prefix(&self.chroot) {
            Some("") => "/".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => path.to_owned(),
        }
    }
}

fn server(text: &str) -> Result<(String, u16), Error> {
    let bad = |what: &str| Error::Malformed(format!("\"{text}\" in the list of servers: {what}"));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?;
            (host, port.strip_prefix(':').unwrap_or(port))
        }
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    if host.is_empty() {
        return Err(bad("the host is missing"));
    }
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().map_err(|_| bad("the port is no number"))? };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_with_and_without_ports_and_a_chroot() {
        let hosts = Hosts::parse("a:1, b,[::1]:3,c:/app/x").unwrap();
        let expected = [("a", 1), ("b", 2181), ("::1", 3), ("c", 2181)];
        assert_eq!(hosts.servers, expected.map(|(host, port)| (host.to_string(), port)));
        assert_eq!(hosts.chroot, "/app/x");
        assert_eq!(Hosts::parse("a/").unwrap().chroot, "");
    }

    #[test]
    fn what_names_no_server_is_refused_with_its_text() {
        for bad in ["", "/app", "a:x", "a:70000", "[::1:3", ":5", "a/b/", "a//b"] {
            assert!(matches!(Hosts::parse(bad), Err(Error::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn a_chroot_is_put_before_paths_and_taken_away_again() {
        let hosts = Hosts::parse("a/app").unwrap();
        for (short, full) in [("/", "/app"), ("/x", "/app/x")] {
            assert_eq!(hosts.full(short), full);
            assert_eq!(hosts.short(full), short);
        }
        assert_eq!(hosts.short("/apple"), "/apple");
        let bare = Hosts::parse("a").unwrap();
        assert_eq!((bare.full("/"), bare.short("/"), bare.short("/x")), ("/".into(), "/".into(), "/x".into()));
    }
}
