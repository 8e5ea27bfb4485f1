//! Apache's scripts under their own names, a file each: the same arguments, output lines, streams and exit codes, so that
//! what was written for Apache's goes on working. Each is a hidden subcommand; the shell script of that name only calls it.

pub mod zk_server;
