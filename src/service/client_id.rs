//! The MQTT client id: unique per machine, and the same at every start, so that the broker finds the session.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::spool::atomic_file;

/// Where the id of the machine is, under the root directory.
const MACHINE_ID: &str = "etc/machine-id";
/// Where a random id is kept in the spool, for machines without an id, such as containers.
const STORED_ID: &str = "client-id";

/// Returns `mqtt.client_id`, or else the node's name followed by eight digits that identify the machine.
pub(super) fn client_id(config: &Config) -> String {
    if let Some(id) = config.mqtt.client_id.as_str() {
        return id.to_owned();
    }
    let node = config.node.as_str();
    let machine = machine_id(&config.board.root).map_or_else(|| stored_id(&config.spool.path), Ok);
    match machine {
        Ok(id) => format!("denoised-{node}-{}", digits(&id)),
        Err(error) => {
            let path = config.spool.path.join(STORED_ID);
            log::warn!(
                "this machine has no /etc/machine-id, and {} cannot be written: {error}; the client id is \
                 denoised-{node}, which another daemon with the same name would take over; set mqtt.client_id",
                path.display()
            );
            format!("denoised-{node}")
        }
    }
}

/// Reads the machine's id. While an image is built it may be empty or `uninitialized`.
fn machine_id(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join(MACHINE_ID)).ok()?;
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Reads the id in the spool, or creates it.
fn stored_id(spool: &Path) -> io::Result<String> {
    let path = spool.join(STORED_ID);
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(spool)?;
    let id = format!("{:032x}", fastrand::u128(..));
    atomic_file::write(spool, STORED_ID, id.as_bytes())?;
    Ok(id)
}

/// Eight digits that do not reveal the id, as machine-id(5) asks.
fn digits(id: &str) -> String {
    let digest = Sha256::digest(format!("denoised client id {id}"));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with this machine-id, and its configuration.
    fn machine(id: Option<&str>) -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        if let Some(id) = id {
            std::fs::create_dir(directory.path().join("etc")).unwrap();
            std::fs::write(directory.path().join(MACHINE_ID), id).unwrap();
        }
        let mut config = Config::default();
        config.board.root = directory.path().to_owned();
        config.spool.path = directory.path().join("spool");
        (directory, config)
    }

    #[test]
    fn two_machines_with_one_name_have_different_ids_and_keep_them() {
        let (_first, first) = machine(Some("0123456789abcdef0123456789abcdef\n"));
        let (_second, second) = machine(Some("fedcba9876543210fedcba9876543210\n"));
        let (_container, container) = machine(None);
        let (_image, image) = machine(Some("uninitialized\n"));
        let configs = [first, second, container, image];
        let ids: Vec<_> = configs.iter().map(client_id).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), 4, "{ids:?}");
        assert_eq!(configs.iter().map(client_id).collect::<Vec<_>>(), ids);
        let prefix = format!("denoised-{}-", Config::default().node.as_str());
        for id in &ids {
            assert!(id.starts_with(&prefix) && id.len() == prefix.len() + 8, "{id}");
        }
        // The machine's id does not need the spool, and is not revealed.
        assert!(!configs[0].spool.path.exists());
        assert!(!ids[0].contains("01234567"), "{}", ids[0]);
    }

    #[test]
    fn a_spool_that_cannot_be_written_leaves_the_name() {
        let (directory, mut config) = machine(None);
        std::fs::write(directory.path().join("file"), "").unwrap();
        config.spool.path = directory.path().join("file/spool");
        assert_eq!(client_id(&config), format!("denoised-{}", config.node.as_str()));
    }
}
