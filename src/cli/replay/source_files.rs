//! The files that a picture was drawn with, of which a receipt has the digests only.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use super::original::Original;
use crate::bundle::file_digest;
use crate::cli::picture_file;
use crate::job::{Attachment, SourceFiles, SourceRole};

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
            for path in paths {
                let bytes = picture_file::read(path).context(flag)?;
                let sha256 = format!("{:x}", Sha256::digest(&bytes));
                check(originals, role, flag, path, &sha256)?;
                files.pictures.insert(sha256, Attachment::from_bytes(&bytes));
            }
            let needed = originals.iter().flat_map(|original| original.receipt.digests(role));
            for sha256 in needed {
                ensure!(
                    files.pictures.contains_key(sha256),
                    "{} was drawn from a file that its receipt has the digest of only; give it by {flag} FILE: its \
                     SHA-256 is {sha256}",
                    originals.first().map_or("the picture", |original| &original.name),
                );
            }
        }
        for path in &self.lora {
            let sha256 =
                file_digest(path).with_context(|| format!("--lora: cannot read {}", path.display()))?;
            check(originals, SourceRole::Lora, "--lora", path, &sha256)?;
            files.loras.insert(sha256, path.clone());
        }
        Ok(files)
    }
}

/// Checks that a receipt has the digest of a file.
fn check(
    originals: &[Original],
    role: SourceRole,
    flag: &str,
    path: &Path,
    sha256: &str,
) -> anyhow::Result<()> {
    let mut expected: Vec<_> = originals.iter().flat_map(|original| original.receipt.digests(role)).collect();
    expected.dedup();
    ensure!(!expected.is_empty(), "{flag}: the picture was drawn without such a file; leave {flag} out");
    ensure!(
        expected.contains(&sha256),
        "{flag}: {} has the SHA-256 {sha256}, but the picture was drawn with {}; give that file",
        path.display(),
        expected.join(", ")
    );
    Ok(())
}
