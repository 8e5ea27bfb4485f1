"""`make install`: everything below DESTDIR and prefix, told where it is; what the operator wrote is kept."""

import re
import stat
import subprocess

import pytest

from server import REPOSITORY, program


@pytest.fixture
def install(kind, tmp_path):
    """Installs, with these variables; gives the files, by their paths on the host. Or another target of make's."""
    if kind == "apache":
        pytest.skip("about our own Makefile")

    def make(target="install", says="", **variables):
        given = {"BINARY": program(), "DESTDIR": tmp_path, **variables}
        # root's may be that strict; what it installs is for everybody.
        done = subprocess.run(["make", "-s", target, *(f"{name}={value}" for name, value in given.items())],
                              cwd=REPOSITORY, capture_output=True, text=True, timeout=60, umask=0o077)
        assert done.returncode == 0 and re.fullmatch(says, done.stdout), done
        return {f"/{path.relative_to(tmp_path)}": path for path in tmp_path.rglob("*") if not path.is_dir()}

    return make


@pytest.mark.parametrize("prefix, sysconfdir", [("/usr", "/etc"), ("/opt/keeper", "/srv/conf")])
def test_all_of_it_is_below_the_prefix_and_knows_that(install, prefix, sysconfdir):
    files = install(prefix=prefix, sysconfdir=sysconfdir)
    assert [path for path in files if not path.startswith(f"{prefix}/")] == [f"{sysconfdir}/rookeeper/zoo.cfg"]
    settings = f"{sysconfdir}/rookeeper/zoo.cfg"
    unit = files[f"{prefix}/lib/systemd/system/rookeeper.service"].read_text()
    assert f"\nExecStart={prefix}/bin/rookeeper run {settings}\n" in unit
    assert re.findall("^EnvironmentFile=-(.*)", unit, re.M) == [f"{sysconfdir}/default/{name}" for name in ("zookeeper", "rookeeper")]
    assert files[f"{prefix}/lib/systemd/system/zookeeper.service"].read_text() == unit
    instance = files[f"{prefix}/lib/systemd/system/rookeeper@.service"].read_text()
    assert f"\nExecStart={prefix}/bin/rookeeper run {sysconfdir}/rookeeper/%i/zoo.cfg\n" in instance
    assert "\nStateDirectory=rookeeper/%i\n" in instance
    for text in (unit, instance):
        assert re.search("^After=.* rookeeper-tuning.service$", text, re.M), "it starts before the host is tuned"
    tune = f"{prefix}/lib/rookeeper/tune-host"
    assert f"\nExecStart={tune}\n" in files[f"{prefix}/lib/systemd/system/rookeeper-tuning.service"].read_text()
    # Who is called there goes by the same paths.
    for path in [tune, f"{prefix}/share/zookeeper/bin/zkEnv.sh", f"{prefix}/lib/tmpfiles.d/rookeeper.conf"]:
        named = set(re.findall(r"(?<![\w.])/[\w/]*(?=/rookeeper(?![-\w]))", files[path].read_text()))
        assert named <= {sysconfdir, "/var/lib", "/var/log", "/run"} and sysconfdir in named, (path, named)
    programs = [files[name] for name in (tune, f"{prefix}/bin/rookeeper", f"{prefix}/share/zookeeper/bin/zk.sh")]
    for name, path in files.items():
        mode = 0o755 if path.resolve() in programs else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == mode, name
        for folder in list(path.parents)[:name.count("/") - 1]:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o755, folder
    # The scripts find the program, wherever they were put and by either name.
    for script in [files[f"{prefix}/bin/zkServer.sh"], files[f"{prefix}/share/zookeeper/bin/zkServer.sh"]]:
        done = subprocess.run([script, "version"], capture_output=True, text=True, timeout=10)
        assert done.stdout.startswith("Apache ZooKeeper, version 3.8."), done
    for folder, logs in [("", "/var/log/rookeeper"), ("/second", "/var/log/rookeeper/second"), ("-else", f"{prefix}/bin/../logs")]:
        done = subprocess.run([files[f"{prefix}/bin/zkServer.sh"], "--config", f"{sysconfdir}/rookeeper{folder}", "print-cmd"],
                              capture_output=True, text=True, timeout=10, env={"PATH": "/usr/bin:/bin"})
        assert f'{logs}/zookeeper-' in done.stdout.split(" > ")[1], done


def test_a_zoo_cfg_that_is_there_is_kept(install):
    path = install()["/etc/rookeeper/zoo.cfg"]
    path.write_text("# mine\n")
    files = install()
    assert path.read_text() == "# mine\n"
    assert files["/usr/local/share/rookeeper/zoo.cfg"].read_text() == (REPOSITORY / "conf/host.cfg").read_text()


@pytest.mark.parametrize("unit", ["other.service", "zookeeper.service"])
def test_what_was_installed_is_removed_and_nothing_else(install, tmp_path, unit):
    others = [tmp_path / "usr" / name for name in ("bin/other", "share/zookeeper/bin/other.sh", f"lib/systemd/system/{unit}",
                                                   "share/man/man1/other.1")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    files = install(prefix="/usr")
    files["/etc/rookeeper/zoo.cfg"].write_text("# mine\n")
    kept = {"/etc/rookeeper/zoo.cfg", *(f"/{path.relative_to(tmp_path)}" for path in others)}
    for _ in range(2):
        assert install("uninstall", r"kept: /etc/rookeeper, /var/lib/rookeeper .*\n", prefix="/usr").keys() == kept
    assert files["/etc/rookeeper/zoo.cfg"].read_text() == "# mine\n"
    assert [path for path in tmp_path.rglob("*rookeeper*") if path != tmp_path / "etc/rookeeper"] == []
