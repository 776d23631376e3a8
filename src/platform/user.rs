//! Users of the host and their groups.

use std::path::Path;

use super::{Platform, field};

/// A user with the groups by which files are accessible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// The name, or the number if it has no name.
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gids: Vec<u32>,
}

impl User {
    /// The user of this process, with its groups.
    pub(crate) fn of_this_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ids = |name: &str| {
            let found = field(&status, name).unwrap_or("").split_whitespace();
            found.filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()
        };
        // Real, effective, saved and file system id.
        let uid = ids("Uid").get(1).copied().unwrap_or_default();
        let name = Platform::default().user_name(uid);
        Self { name, uid, gids: [ids("Gid"), ids("Groups")].concat() }
    }
}

impl Platform {
    /// Returns the id of a group.
    pub(crate) fn group(&self, name: &str) -> Option<u32> {
        let groups = self.text("/etc/group")?;
        let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(2)?.parse().ok()
    }

    /// Returns a user by name or number, with the groups that it has by its entry and as a member.
    pub(crate) fn user(&self, name: &str) -> Option<User> {
        // name:password:uid:gid:…
        let users = self.text("/etc/passwd")?;
        let entry: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|entry| entry.len() > 3 && (entry[0] == name || entry[2] == name))?;
        let (uid, gid) = (entry[2].parse().ok()?, entry[3].parse().ok()?);
        // name:password:gid:member,member
        let groups = self.text("/etc/group").unwrap_or_default();
        let memberships = groups.lines().filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == entry[0]).then_some(gid)
        });
        Some(User { name: entry[0].to_owned(), uid, gids: [gid].into_iter().chain(memberships).collect() })
    }

    /// Returns the user who owns a file, unless that is root.
    pub(crate) fn owner(&self, path: &Path) -> Option<User> {
        use std::os::unix::fs::MetadataExt;
        let metadata = path.metadata().ok().filter(|metadata| metadata.uid() != 0)?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let unnamed = || User { name: uid.to_string(), uid, gids: vec![gid] };
        Some(self.user(&uid.to_string()).unwrap_or_else(unnamed))
    }

    /// Returns the name of the user who owns a file, or the number if it has no name.
    pub(crate) fn owner_name(&self, path: &Path) -> Option<String> {
        let metadata = path.metadata().ok()?;
        Some(self.user_name(std::os::unix::fs::MetadataExt::uid(&metadata)))
    }

    fn user_name(&self, uid: u32) -> String {
        self.user(&uid.to_string()).map_or_else(|| uid.to_string(), |user| user.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_of_both_files() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(
            root.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\ndenoised:x:105:112::/var/lib/denoised:/usr/sbin/nologin\n",
        )
        .unwrap();
        std::fs::write(
            root.path().join("etc/group"),
            "video:x:44:denoised,me\nrender:x:106:me\ndenoised:x:112:\n",
        )
        .unwrap();
        let platform = Platform::new(root.path());
        let expected = User { name: "denoised".to_owned(), uid: 105, gids: vec![112, 44] };
        assert_eq!(platform.user("denoised"), Some(expected.clone()));
        assert_eq!(platform.user("105"), Some(expected));
        assert_eq!(platform.user("nobody"), None);
        assert_eq!(platform.group("render"), Some(106));
    }
}
