//! Detects that the root of the topics is not that of the last start, for example because the host name changed.

use crate::config::Config;
use crate::spool::topic_root;

/// A root that differs from that of the last start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootChange {
    /// What changed, with the old and the new root.
    pub(crate) found: String,
    /// What to do.
    pub(crate) next: String,
    /// Whether the host name caused it, and not the configuration.
    is_unintended: bool,
}

/// Compares the configured root with the one that the spool's directory has.
pub(crate) fn root_change(config: &Config) -> std::io::Result<Option<RootChange>> {
    Ok(topic_root::read(&config.spool.path)?.and_then(|old| compare(config, &old)))
}

fn compare(config: &Config, old: &str) -> Option<RootChange> {
    let new = config.root();
    if new == old {
        return None;
    }
    Some(match config.mqtt.root.node_in(old).filter(|_| config.node.is_host_name()) {
        Some(node) => RootChange {
            found: format!(
                "the host name changed from {node} to {}, so that the root of all topics is {new} and no longer \
                 {old}; clients of the old topics reach nobody",
                config.node.as_str()
            ),
            next: format!(
                "to keep the old topics, set node = {node:?}; to use the new ones, set node = {:?}",
                config.node.as_str()
            ),
            is_unintended: true,
        },
        None => RootChange {
            found: format!("the root of all topics is {new} and no longer {old}, as configured"),
            next: "clients must use the new topics".to_owned(),
            is_unintended: false,
        },
    })
}

/// Warns about a changed root, and stores the present one. A root that follows from a changed host name is reported at
/// every start until `node` is set.
pub(super) fn check(config: &Config) {
    let directory = &config.spool.path;
    let change = root_change(config).unwrap_or_else(|error| {
        log::warn!("{}: cannot read the root of the last start: {error}", directory.display());
        None
    });
    if let Some(change) = &change {
        log::warn!("{}; {}", change.found, change.next);
    }
    if change.is_none_or(|change| !change.is_unintended)
        && let Err(error) = topic_root::write(directory, &config.root())
    {
        log::warn!("{}: cannot store the root of the topics: {error}", directory.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_changed_host_name_is_told_from_a_changed_configuration() {
        let by_host = config("");
        let host = by_host.node.as_str();
        assert_eq!(compare(&by_host, &format!("denoised/{host}")), None);
        let change = compare(&by_host, "denoised/old").unwrap();
        assert!(change.is_unintended);
        assert_eq!(
            change.next,
            format!("to keep the old topics, set node = \"old\"; to use the new ones, set node = {host:?}")
        );
        for (text, root) in [
            ("node = \"new\"", "denoised/new"),
            ("[mqtt]\nroot = \"home/{node}\"", &format!("home/{host}")),
            ("[mqtt]\nroot = \"home\"", "home"),
        ] {
            let change = compare(&config(text), "denoised/old").unwrap();
            assert!(!change.is_unintended, "{text}");
            let expected =
                format!("the root of all topics is {root} and no longer denoised/old, as configured");
            assert_eq!(change.found, expected);
        }
    }

    #[test]
    fn a_changed_host_name_is_reported_until_the_node_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let spool = format!("[spool]\npath = {:?}\n", path.display().to_string());
        topic_root::write(path, "denoised/old").unwrap();
        for _ in 0..2 {
            check(&config(&spool));
            assert!(root_change(&config(&spool)).unwrap().is_some());
        }
        let named = config(&format!("node = \"new\"\n{spool}"));
        check(&named);
        assert_eq!(root_change(&named).unwrap(), None);
    }
}
