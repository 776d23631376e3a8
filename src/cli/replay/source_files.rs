//! The files that a picture was drawn with, of which a receipt has the digests only.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use super::original::Original;
use crate::bundle::file_digest;
use crate::cli::picture_file;
use crate::cli::run_job::LIMITS;
use crate::image::mask_of_transparency;
use crate::job::{Attachment, SourceFiles, SourceRole};
use crate::units::counted;

/// Flags for the files that the picture was drawn with.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files of the job, of which a receipt has the digests only")]
pub(super) struct SourceArguments {
    /// The init image
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The inpainting mask
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// The picture of a ControlNet; once for each, in any order
    #[arg(long, value_name = "FILE")]
    control: Vec<PathBuf>,
    /// The file of a LoRA; once for each, in any order [default: by their names, from the folders of LoRAs]
    #[arg(long, value_name = "FILE")]
    lora: Vec<PathBuf>,
}

impl SourceArguments {
    /// Reads the files, and checks that they are those of the receipts, and that no picture is missing.
    pub(super) fn read(&self, originals: &[Original]) -> anyhow::Result<SourceFiles> {
        let mut files = SourceFiles::default();
        let pictures = [
            (SourceRole::Image, "--image", self.image.as_slice()),
            (SourceRole::Mask, "--mask", self.mask.as_slice()),
            (SourceRole::Control, "--control", &self.control),
        ];
        for (role, flag, paths) in pictures {
            let expected = expected(originals, role);
            ensure!(
                paths.len() <= expected.len() || expected.is_empty(),
                "{flag} is there {} times, but the picture was drawn with {}; give each file once",
                paths.len(),
                counted(expected.len() as u64, "such file"),
            );
            for path in paths {
                let mut bytes = picture_file::read(path).context(flag)?;
                let mut sha256 = hex_digest(&bytes);
                if role == SourceRole::Mask && !expected.contains(&sha256.as_str()) {
                    // The mask of an edit over HTTP was made from the picture's transparency.
                    bytes = mask_of_transparency(&bytes, LIMITS.pixels).ok().flatten().unwrap_or(bytes);
                    let of_transparency = hex_digest(&bytes);
                    if expected.contains(&of_transparency.as_str()) {
                        sha256 = of_transparency;
                    }
                }
                check(&expected, flag, path, &sha256)?;
                files.pictures.insert(sha256, Attachment::from_bytes(&bytes));
            }
            for sha256 in expected {
                ensure!(
                    files.pictures.contains_key(sha256),
                    "{} was drawn from a file that its receipt has the digest of only; give it by {flag} FILE: its \
                     SHA-256 is {sha256}",
                    originals.first().map_or("the picture", |original| &original.name),
                );
            }
        }
        let expected = expected(originals, SourceRole::Lora);
        for path in &self.lora {
            let sha256 =
                file_digest(path).with_context(|| format!("--lora: cannot read {}", path.display()))?;
            check(&expected, "--lora", path, &sha256)?;
            files.loras.insert(sha256, path.clone());
        }
        Ok(files)
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The digests that receipts have of files with this role, each once.
fn expected(originals: &[Original], role: SourceRole) -> Vec<&str> {
    let mut seen = HashSet::new();
    let digests = originals.iter().flat_map(|original| original.receipt.digests(role));
    digests.filter(|sha256| seen.insert(*sha256)).collect()
}

/// Checks that a file is one of the expected ones.
fn check(expected: &[&str], flag: &str, path: &Path, sha256: &str) -> anyhow::Result<()> {
    ensure!(!expected.is_empty(), "{flag}: the picture was drawn without such a file; leave {flag} out");
    ensure!(
        expected.contains(&sha256),
        "{flag}: {} has the SHA-256 {sha256}, but the picture was drawn with {}; give that file",
        path.display(),
        expected.join(", ")
    );
    Ok(())
}
