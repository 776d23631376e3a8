//! What is around the daemon: broker, models, directories, groups.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use super::finding::Finding;
use crate::bundle::Bundle;
use crate::config::{BrokerUrl, Config};
use crate::platform::Platform;

const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn findings(config: &Config, board: &Platform) -> Vec<Finding> {
    let mut findings = vec![broker(&config.mqtt.url)];
    findings.extend(config.models.paths.iter().map(|path| model(path)));
    findings.push(directory("spool.path", &config.spool.path));
    if config.engine.providers.iter().any(|provider| provider.builds_engines()) {
        findings.push(directory("engine.cache", &config.engine.cache));
    }
    findings.extend(["video", "render"].into_iter().filter_map(|group| member(board, group)));
    findings
}

fn broker(url: &BrokerUrl) -> Finding {
    let address = (url.host.as_str(), url.port);
    let reached = address.to_socket_addrs().and_then(|addresses| {
        let mut last = std::io::Error::other("the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    });
    match reached {
        Ok(address) => Finding::good("broker", format!("something listens for {url} at {address}")),
        Err(error) => Finding::missing(
            "broker",
            format!("{url} can't be reached: {error}"),
            "sudo apt install mosquitto && sudo systemctl enable --now mosquitto, or name your broker in [mqtt] url",
        ),
    }
}

fn model(path: &Path) -> Finding {
    match Bundle::open(path) {
        Ok(bundle) => Finding::good("model", format!("{} ({})", bundle.name, path.display())),
        Err(error) => Finding::missing(
            "model",
            error.to_string(),
            "name the directory of an exported model in [models] paths; `denoised inspect DIRECTORY` tells what it is",
        ),
    }
}

fn directory(key: &str, path: &Path) -> Finding {
    let next = || {
        format!("sudo install -d -m 700 -o \"$USER\" {0}, or name another directory in {key}", path.display())
    };
    if !path.is_dir() {
        return Finding::missing(key, format!("there is no directory {}", path.display()), next());
    }
    match tempfile::tempfile_in(path) {
        Ok(_) => Finding::good(key, format!("{} may be written", path.display())),
        Err(error) => {
            Finding::missing(key, format!("{} may not be written: {error}", path.display()), next())
        }
    }
}

/// On a Jetson, whether this user is in a group to which the GPU's device nodes belong.
fn member(board: &Platform, group: &str) -> Option<Finding> {
    board.release()?;
    let about = format!("group {group}");
    let Some(number) = board.group(group) else {
        return Some(Finding::note(&about, "there is no such group", "nothing to do: this JetPack has none"));
    };
    let ours = board.groups_of_this_process();
    if ours.contains(&number) || ours.contains(&0) {
        return Some(Finding::good(&about, "this user is a member"));
    }
    let next = format!(
        "sudo usermod -aG {group} \"$USER\", then log in again; the service's own user is a member already"
    );
    Some(Finding::note(&about, "this user is no member, so CUDA may find no GPU", next))
}
