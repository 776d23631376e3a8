//! The systemd unit of the daemon, as far as it decides which files the daemon can use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Platform;

const NAME: &str = "denoised.service";
/// The directories of units in order of precedence.
const DIRECTORIES: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// The settings whose values are lists: further lines append to them.
const LISTS: [&str; 5] =
    ["SupplementaryGroups", "ReadWritePaths", "StateDirectory", "CacheDirectory", "LoadCredential"];

/// The `[Service]` section of an installed unit, with its drop-ins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceUnit(BTreeMap<String, String>);

impl Platform {
    /// Reads the unit, if it is installed.
    pub(crate) fn service_unit(&self) -> Option<ServiceUnit> {
        let text = DIRECTORIES.iter().find_map(|directory| self.text(&format!("{directory}/{NAME}")))?;
        let drop_ins = DIRECTORIES.iter().rev().flat_map(|directory| {
            self.entries(&format!("{directory}/{NAME}.d")).into_iter().filter_map(|path| {
                let is_drop_in = path.extension().is_some_and(|extension| extension == "conf");
                is_drop_in.then(|| std::fs::read_to_string(path).ok()).flatten()
            })
        });
        Some(ServiceUnit::parse([text].into_iter().chain(drop_ins)))
    }
}

impl ServiceUnit {
    fn parse(files: impl Iterator<Item = String>) -> Self {
        let mut settings = BTreeMap::<String, String>::new();
        for text in files {
            let mut section = "";
            for line in text.lines().map(str::trim) {
                if line.starts_with('[') {
                    section = line;
                }
                let Some((key, value)) = line.split_once('=').filter(|_| section == "[Service]") else {
                    continue;
                };
                let (key, value) = (key.trim(), value.trim());
                let setting = settings.entry(key.to_owned()).or_default();
                // An empty value resets a list.
                if LISTS.contains(&key) && !value.is_empty() && !setting.is_empty() {
                    setting.push(' ');
                    setting.push_str(value);
                } else {
                    *setting = value.to_owned();
                }
            }
        }
        Self(settings)
    }

    fn value(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &str> {
        self.value(key).split_whitespace()
    }

    /// The user as whom the daemon runs.
    pub(crate) fn user(&self) -> &str {
        match self.value("User") {
            "" => "root",
            user => user,
        }
    }

    /// The groups that the daemon has besides those of its user.
    pub(crate) fn supplementary_groups(&self) -> impl Iterator<Item = &str> {
        self.list("SupplementaryGroups")
    }

    /// The file of a credential.
    pub(crate) fn credential(&self, name: &str) -> Option<&str> {
        self.list("LoadCredential").find_map(|entry| entry.strip_prefix(name)?.strip_prefix(':'))
    }

    /// Whether systemd makes this directory when the daemon starts, and gives it to the daemon's user.
    pub(crate) fn makes(&self, path: &Path) -> bool {
        self.own_directories().any(|directory| directory == path)
    }

    fn own_directories(&self) -> impl Iterator<Item = PathBuf> {
        let state = self.list("StateDirectory").map(|name| Path::new("/var/lib").join(name));
        state.chain(self.list("CacheDirectory").map(|name| Path::new("/var/cache").join(name)))
    }

    /// The setting that hides a path from the daemon, if there is one.
    pub(crate) fn hides(&self, path: &Path) -> Option<&'static str> {
        let is_below = |roots: &[&str]| roots.iter().any(|root| path.starts_with(root));
        if is_below(&["/home", "/root", "/run/user"])
            && matches!(self.value("ProtectHome"), "yes" | "true" | "tmpfs")
        {
            return Some("ProtectHome");
        }
        let is_private = matches!(self.value("PrivateTmp"), "yes" | "true" | "disconnected");
        (is_private && is_below(&["/tmp", "/var/tmp"])).then_some("PrivateTmp")
    }

    /// Whether the unit lets the daemon write to a directory whose mode bits allow it.
    pub(crate) fn allows_writing(&self, path: &Path) -> bool {
        self.value("ProtectSystem") != "strict"
            || self.own_directories().any(|directory| path.starts_with(directory))
            || self.list("ReadWritePaths").any(|root| path.starts_with(root.trim_start_matches(['-', '+'])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_the_package_is_read_with_its_drop_ins() {
        let root = tempfile::tempdir().unwrap();
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/denoised.service");
        let (units, drop_ins) = (
            root.path().join("usr/lib/systemd/system"),
            root.path().join("etc/systemd/system/denoised.service.d"),
        );
        std::fs::create_dir_all(&units).unwrap();
        std::fs::create_dir_all(&drop_ins).unwrap();
        std::fs::copy(unit, units.join("denoised.service")).unwrap();
        let unit = Platform::new(root.path()).service_unit().unwrap();
        assert_eq!(unit.user(), "denoised");
        assert_eq!(unit.supplementary_groups().collect::<Vec<_>>(), ["video", "render"]);
        assert_eq!(unit.credential("mqtt-password"), Some("/etc/denoised/mqtt-password"));
        assert!(unit.makes(Path::new("/var/lib/denoised")) && unit.makes(Path::new("/var/cache/denoised")));
        assert!(!unit.makes(Path::new("/srv/denoised")));
        assert_eq!(unit.hides(Path::new("/home/me/models")), Some("ProtectHome"));
        assert_eq!(unit.hides(Path::new("/tmp/models")), Some("PrivateTmp"));
        assert_eq!(unit.hides(Path::new("/srv/models")), None);
        assert!(unit.allows_writing(Path::new("/var/lib/denoised")));
        assert!(!unit.allows_writing(Path::new("/srv/spool")));

        let text = "[Service]\nUser=images\nReadWritePaths=-/srv\nSupplementaryGroups=\nSupplementaryGroups=gpio\nProtectHome=no\n";
        std::fs::write(drop_ins.join("override.conf"), text).unwrap();
        let unit = Platform::new(root.path()).service_unit().unwrap();
        assert_eq!(unit.user(), "images");
        assert_eq!(unit.supplementary_groups().collect::<Vec<_>>(), ["gpio"]);
        assert!(unit.allows_writing(Path::new("/srv/spool")));
        assert_eq!(unit.hides(Path::new("/home/me/models")), None);
    }
}
