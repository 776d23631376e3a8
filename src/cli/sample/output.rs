//! Where samples go: a picture, raw values, or a directory of pictures.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::image::{self, Format};
use crate::job::Job;
use crate::npy;

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// One picture, or a grid.
    Picture(PathBuf),
    /// The raw values.
    Raw(PathBuf),
    /// One picture each.
    Directory(PathBuf),
}

impl Output {
    /// What a path means.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            _ if path.is_dir() => Ok(Self::Directory(path.to_owned())),
            Some("png") => Ok(Self::Picture(path.to_owned())),
            Some("npy") => Ok(Self::Raw(path.to_owned())),
            None => Ok(Self::Directory(path.to_owned())),
            Some(other) => bail!("--output: .{other} is not written here; take .png, .npy or a directory"),
        }
    }

    /// How each sample is encoded.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Raw(_) => Format::Npy,
            Self::Picture(_) | Self::Directory(_) => Format::Png,
        }
    }

    /// Write all samples of a job.
    pub(super) fn write(&self, samples: &[Vec<f32>], job: &Job) -> anyhow::Result<()> {
        let shape = &job.sizes.picture;
        let description = &job.model.bundle.manifest.sample;
        let pictures = || {
            let pictures = samples.iter().map(|sample| image::to_image(sample, shape, description));
            pictures.collect::<Result<Vec<_>, _>>()
        };
        match self {
            Self::Raw(path) => raw(path, &[&[samples.len()], &shape[..]].concat(), &samples.concat()),
            Self::Picture(path) => match pictures()?.as_slice() {
                [single] => save(path, &image::png(single)?),
                several => save(path, &image::png(&image::grid(several, 1)?)?),
            },
            Self::Directory(path) => {
                std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
                for (index, picture) in pictures()?.iter().enumerate() {
                    let name = format!("{index:04}-{}.png", job.image_seed(index));
                    save(&path.join(name), &image::png(picture)?)?;
                }
                Ok(())
            }
        }
    }
}

/// Write values of this shape as they are.
pub(super) fn raw(path: &Path, shape: &[usize], values: &[f32]) -> anyhow::Result<()> {
    save(path, &npy::write(shape, values)?)
}

fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
