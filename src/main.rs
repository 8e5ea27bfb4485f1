//! The daemon: arguments, configuration, the server's threads, and a signal that ends it. Nothing else lives here.

use std::fs::File;
use std::path::Path;
use std::process::exit;

use nix::sys::signal::{SigSet, Signal};
use rookeeper::cli::{Cli, Command, Run};
use rookeeper::config::{self, Config, ConfigError};
use rookeeper::pipeline::audit;
use rookeeper::sys::exit::{ExitCode, fatal};
use rookeeper::sys::host::user_name;
use rookeeper::sys::notify::Notify;
use rookeeper::sys::{files, stop, systemd, tasks};
use rookeeper::threads::health;
use rookeeper::threads::start::Server;

fn main() {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    rookeeper::sys::logging::init();
    end_on_panic();
    if cli.command.writes_data() {
        files::keep_private();
    }
    match cli.command {
        Command::Run(run) => serve(&run),
        Command::Tool(tool) => exit(tool.run()),
        Command::Script(script) => exit(script.run()),
        Command::Shell(arguments) => exit(arguments.run()),
        Command::Generate(generate) => {
            if let Err(error) = generate.write() {
                eprintln!("{error}");
                exit(1);
            }
        }
    }
}

/// A panic in any thread is a bug of ours: the process ends, so that an ensemble or a service manager takes over, rather
/// than go on with a part of itself missing.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let trace = std::backtrace::Backtrace::capture();
        fatal(ExitCode::Unexpected, &format!("thread {name} panicked, please report this: {info}\n{trace}"));
    }));
}

fn serve(run: &Run) {
    let config = read_config(run);
    // Threads inherit the mask, so that the signals wait for this one.
    let signals = stop::signals();
    signals.thread_block().expect("SIGTERM and SIGINT can be blocked");
    report_on_quit();
    let mut manager = Notify::from_env();
    if let Some(manager) = &mut manager {
        manager.tell("STATUS=reading the data");
    }
    let auditor = config.features.audit_enabled.then(user_name);
    let server = Server::start(&config).unwrap_or_else(|error| {
        auditor.iter().for_each(|user| audit::server_start(user, false));
        fatal(error.code, &error.message)
    });
    auditor.iter().for_each(|user| audit::server_start(user, true));
    for address in &server.addresses {
        log::info!("listening on {address}, data in {}", config.data_dir.display());
    }
    if server.addresses.is_empty() {
        log::warn!("no clientPort is configured: nobody can connect; data in {}", config.data_dir.display());
    }
    // Its thread inherits the mask, too.
    if let Some(manager) = manager {
        health::start(manager, server.checked_threads())
            .unwrap_or_else(|error| fatal(ExitCode::Unexpected, &format!("cannot start a thread: {error}")));
    }
    let signal = signals.wait().expect("the set holds valid signals");
    log::info!("{signal}: stopping");
    if let Some(mut manager) = Notify::from_env() {
        manager.tell("STOPPING=1\nSTATUS=stopping");
    }
    auditor.iter().for_each(|user| audit::server_stop(user));
    stop::end_within(stop::STOP_MS_MAX);
    server.stop();
    log::info!("stopped");
    exit(ExitCode::Finished as i32);
}

/// SIGQUIT (`kill -3`) says what each thread does, as a Java server does, and the server goes on.
fn report_on_quit() {
    let quit: SigSet = [Signal::SIGQUIT].into_iter().collect();
    quit.thread_block().expect("SIGQUIT can be blocked");
    let body = move || {
        loop {
            quit.wait().expect("the set holds a valid signal");
            log::info!("SIGQUIT: what each thread does\n{}", tasks::report().join("\n"));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("report".into()).spawn(body) {
        log::warn!("SIGQUIT will be passed over: no thread for it: {error}");
    }
}

fn read_config(run: &Run) -> Config {
    let path = run.config_path(|name| std::env::var(name).ok());
    let (config, warnings) = config::read(&path, &run.properties());
    for warning in warnings {
        log::warn!("{warning}");
    }
    config.unwrap_or_else(|error| {
        let remedy = sandbox_remedy(&error).map_or_else(String::new, |remedy| format!("; {remedy}"));
        log::error!("{error}{remedy}");
        exit(ExitCode::InvalidInvocation as i32);
    })
}

/// dataDir/myid is read first: it is where a dataDir is found to be out of reach.
fn sandbox_remedy(error: &ConfigError) -> Option<String> {
    let ConfigError::Unreadable { path, .. } = error else { return None };
    let path = Path::new(path);
    systemd::sandbox_remedy(files::parent(path), &File::open(path).err()?)
}
