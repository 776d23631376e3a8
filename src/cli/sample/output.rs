//! Where `sample` writes: an image, raw values, or a directory of images.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::image::{self, Format};
use crate::job::Job;
use crate::npy;

/// Where the samples of a job are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OutputTarget {
    /// One image, or a grid of several.
    Image(PathBuf),
    /// The raw values.
    Array(PathBuf),
    /// One image per sample.
    Directory(PathBuf),
}

impl OutputTarget {
    /// Chooses by the path's extension.
    pub(super) fn from_path(path: &Path) -> anyhow::Result<Self> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            _ if path.is_dir() => Ok(Self::Directory(path.to_owned())),
            Some("png") => Ok(Self::Image(path.to_owned())),
            Some("npy") => Ok(Self::Array(path.to_owned())),
            None => Ok(Self::Directory(path.to_owned())),
            Some(other) => bail!("--output: .{other} is not supported; use .png, .npy or a directory"),
        }
    }

    /// Returns the format of each sample.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Array(_) => Format::Npy,
            Self::Image(_) | Self::Directory(_) => Format::Png,
        }
    }

    /// Writes all samples of a job.
    pub(super) fn write(&self, samples: &[Vec<f32>], job: &Job) -> anyhow::Result<()> {
        let shape = &job.sizes.image;
        let description = &job.model.bundle.manifest.sample;
        let images = || {
            let images = samples.iter().map(|sample| image::to_image(sample, shape, description));
            images.collect::<Result<Vec<_>, _>>()
        };
        match self {
            Self::Array(path) => {
                write_array(path, &[&[samples.len()], &shape[..]].concat(), &samples.concat())
            }
            Self::Image(path) => match images()?.as_slice() {
                [single] => save(path, &image::png(single)?),
                several => save(path, &image::png(&image::grid(several, 1)?)?),
            },
            Self::Directory(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
                for (index, image) in images()?.iter().enumerate() {
                    let name = format!("{index:04}-{}.png", job.image_seed(index));
                    save(&path.join(name), &image::png(image)?)?;
                }
                Ok(())
            }
        }
    }
}

/// Writes values of this shape as a .npy file.
pub(super) fn write_array(path: &Path, shape: &[usize], values: &[f32]) -> anyhow::Result<()> {
    save(path, &npy::write(shape, values)?)
}

fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
