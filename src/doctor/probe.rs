//! Finds everything out, one probe after the other; the clocks are compared over the whole time.

use std::path::{Path, PathBuf};

use crate::config::{self, Config, Mode};
use crate::doctor::facts::{Facts, Settings};
use crate::doctor::{disk, folders, host, network, running, service};
use crate::inspect::Folders;
use crate::storage::dirs::DataDirs;
use crate::sys::clock;

/// Looks at the host that this configuration is for. Two to five seconds.
pub fn probe(config_path: &Path) -> Facts {
    let begun = clock::now();
    let (config, warnings) = config::read(config_path, &[]);
    let mut facts = Facts {
        config_path: config_path.to_owned(),
        config_warnings: warnings.iter().map(ToString::to_string).collect(),
        host: host::probe(),
        service: service::probe(config_path),
        next_config: next_config(config_path),
        ..Facts::default()
    };
    let mut admin = None;
    let dirs = match config {
        Ok(config) => {
            admin = Some(config.admin.clone());
            facts.settings = Some(settings(&config));
            facts.ports_missed = network::probe_own_ports(&config);
            if let Mode::Quorum(ensemble) = &config.mode {
                facts.ensemble = Some(network::probe(ensemble, config.ensemble.listen_on_all_ips));
            }
            Some(DataDirs::new(&config.data_dir, Some(&config.data_log_dir)))
        }
        Err(error) => {
            facts.config_error = Some(error.to_string());
            Folders::of_config(config_path).ok().map(|folders| folders.dirs())
        }
    };
    if let Some(dirs) = dirs {
        facts.folders = folders::probe(&dirs, facts.service.as_ref());
        if facts.folders.iter().any(|folder| folder.in_use) {
            facts.snapshot_failures = admin.and_then(|admin| running::probe_snapshot_failures(&admin)).unwrap_or(0);
        }
        match disk::nearest(&dirs.logs).map(disk::probe) {
            Some(Ok(disk)) => facts.disk = Some(disk),
            Some(Err(error)) => facts.disk_error = Some(format!("{}: {error}", dirs.logs.display())),
            None => {}
        }
    }
    facts.clock = host::probe_clock(begun);
    facts
}

fn next_config(config_path: &Path) -> Option<PathBuf> {
    let mut name = config_path.as_os_str().to_owned();
    name.push(".dynamic.next");
    Some(PathBuf::from(name)).filter(|path| path.exists())
}

fn settings(config: &Config) -> Settings {
    let ticks = |count: u32| u64::from(count) * u64::from(config.tick_ms);
    let connect_ticks = match config.ensemble.connect_limit_ticks {
        0 => config.ensemble.init_limit_ticks,
        set => set,
    };
    Settings {
        tick_ms: config.tick_ms,
        init_ms: ticks(config.ensemble.init_limit_ticks),
        sync_ms: ticks(config.ensemble.sync_limit_ticks),
        session_timeout_min_ms: u64::try_from(config.session_timeout_min_ms).unwrap_or(0),
        dial_ms: u64::try_from(config.ensemble.dial_timeout_ms).unwrap_or(0),
        connect_ms: ticks(connect_ticks),
        log_bytes: config.storage.pre_alloc_size_kb << 10,
        log_through_mapping: config.storage.log_through_mapping,
        force_sync: config.storage.force_sync,
        purges: config.storage.purge_interval_ms.is_some(),
        has_log_dir: config.data_log_dir != config.data_dir,
    }
}
