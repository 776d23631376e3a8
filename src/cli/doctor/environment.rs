//! The broker, the models, the directories and the groups that the daemon needs.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use super::finding::Finding;
use crate::bundle::Bundle;
use crate::config::{BrokerUrl, Config};
use crate::platform::Platform;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn findings(config: &Config, platform: &Platform) -> Vec<Finding> {
    let mut findings = vec![broker(&config.mqtt.url)];
    findings.extend(config.models.paths.iter().map(|path| model(path)));
    findings.push(directory("spool.path", &config.spool.path));
    if config.engine.providers.iter().any(|provider| provider.builds_engines()) {
        findings.push(directory("engine.cache", &config.engine.cache));
    }
    findings.extend(["video", "render"].into_iter().filter_map(|group| group_membership(platform, group)));
    findings
}

fn broker(url: &BrokerUrl) -> Finding {
    let address = (url.host.as_str(), url.port);
    let reached = address.to_socket_addrs().and_then(|addresses| {
        let mut last = std::io::Error::other("the host name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    });
    match reached {
        Ok(address) => Finding::good("broker", format!("{url} accepts connections at {address}")),
        Err(error) => Finding::missing(
            "broker",
            format!("cannot connect to {url}: {error}"),
            "sudo apt install mosquitto && sudo systemctl enable --now mosquitto, or set [mqtt] url to your broker",
        ),
    }
}

fn model(path: &Path) -> Finding {
    match Bundle::open(path) {
        Ok(bundle) => Finding::good("model", format!("{} ({})", bundle.name, path.display())),
        Err(error) => Finding::missing(
            "model",
            error.to_string(),
            "set [models] paths to the directories of exported models; `denoised inspect DIRECTORY` shows what a directory has",
        ),
    }
}

fn directory(key: &str, path: &Path) -> Finding {
    let next = || {
        format!("sudo install -d -m 700 -o \"$USER\" {0}, or set {key} to another directory", path.display())
    };
    if !path.is_dir() {
        return Finding::missing(key, format!("there is no directory {}", path.display()), next());
    }
    match tempfile::tempfile_in(path) {
        Ok(_) => Finding::good(key, format!("{} is writable", path.display())),
        Err(error) => Finding::missing(key, format!("{} is not writable: {error}", path.display()), next()),
    }
}

/// On a Jetson, checks that this user is in a group that owns the GPU's device nodes.
fn group_membership(platform: &Platform, group: &str) -> Option<Finding> {
    platform.l4t_release()?;
    let about = format!("group {group}");
    let Some(number) = platform.group(group) else {
        return Some(Finding::note(
            &about,
            "there is no such group",
            "nothing to do: this JetPack does not have it",
        ));
    };
    let ours = platform.groups_of_this_process();
    if ours.contains(&number) || ours.contains(&0) {
        return Some(Finding::good(&about, "this user is a member"));
    }
    let next = format!(
        "sudo usermod -aG {group} \"$USER\", then log in again; the service's own user already is a member"
    );
    Some(Finding::note(&about, "this user is not a member, so CUDA may find no GPU", next))
}
