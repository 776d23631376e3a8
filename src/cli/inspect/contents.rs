//! The files of a bundle and the keys of its configurations.

use std::collections::BTreeMap;
use std::io::Write;

use super::row;
use crate::bundle::{FileUse, Inventory, KeyUse};
use crate::cli::stdout::Stdout;

/// Lists the files that are not used. With `all`, every file.
pub(super) fn files(inventory: &Inventory, all: bool) -> std::io::Result<()> {
    let is_used = |status: &FileUse| matches!(status, FileUse::Used);
    let used = inventory.files.values().filter(|status| is_used(status)).count();
    row("used", format_args!("{used} of {} files", inventory.files.len()))?;
    if all {
        for file in inventory.files.iter().filter(|(_, status)| is_used(status)).map(|(file, _)| file) {
            row("used", file)?;
        }
    }
    // The files of a folder that have one reason are one line.
    let mut unused: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (file, status) in &inventory.files {
        if let FileUse::NotUsed(reason) = status {
            let folder = file.split_once('/').map_or("", |(folder, _)| folder);
            unused.entry((folder, reason)).or_default().push(file);
        }
    }
    for ((folder, reason), files) in unused {
        match files.as_slice() {
            [_, _, _, ..] if !all => {
                let place = if folder.is_empty() { "the folder itself" } else { folder };
                row("not used", format_args!("{} files in {place}: {reason}", files.len()))?;
            }
            files => files.iter().try_for_each(|file| row("not used", format_args!("{file}: {reason}")))?,
        }
    }
    Ok(())
}

/// Lists the configurations and the keys in them that are not used. With `all`, every key. Keys without effect describe
/// what the graphs contain, their training, or the files.
pub(super) fn keys(inventory: &Inventory, all: bool) -> std::io::Result<()> {
    for (file, keys) in &inventory.keys {
        let count = |wanted: fn(&KeyUse) -> bool| keys.values().filter(|status| wanted(status)).count();
        let used = count(|status| *status == KeyUse::Used);
        let without_effect = count(|status| *status == KeyUse::WithoutEffect);
        let unused = match count(|status| matches!(status, KeyUse::NotUsed(_))) {
            0 => String::new(),
            count => format!(", {count} not used"),
        };
        writeln!(Stdout, "  {file:<42} {used} used, {without_effect} without effect{unused}")?;
        for (key, status) in keys {
            match status {
                KeyUse::Used if all => row("  used", key)?,
                KeyUse::WithoutEffect if all => row("  without effect", key)?,
                KeyUse::Used | KeyUse::WithoutEffect => {}
                KeyUse::NotUsed(reason) => row("  not used", format_args!("{key}: {reason}"))?,
                KeyUse::Unknown => row("  unknown", key)?,
            }
        }
    }
    Ok(())
}
