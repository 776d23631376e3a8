//! The flags of `sample` for ControlNets.

use std::path::PathBuf;

use anyhow::Context;

use crate::cli::flag_values::number;
use crate::cli::picture_file;
use crate::job::{Attachment, ControlRequest};

/// Flags for ControlNets.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "ControlNet")]
pub(super) struct ControlArguments {
    /// A picture that steers the job through a ControlNet, with the scale and the part of the steps in which it counts; once
    /// for each picture [default: the only ControlNet, scale 1, from 0 to 1]
    #[arg(long, value_name = "[NET=]FILE[@SCALE[,START,END]]", value_parser = control)]
    control: Vec<ControlArgument>,
    /// Control only the evaluations with the prompt, and the middle of the network most
    #[arg(long)]
    guess_mode: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct ControlArgument {
    net: Option<String>,
    file: PathBuf,
    scale: Option<f64>,
    window: Option<[f64; 2]>,
}

fn control(text: &str) -> Result<ControlArgument, String> {
    // A path may have an equals sign or an at sign.
    let (net, rest) = match text.split_once('=') {
        Some((net, rest)) if !net.contains('/') => (Some(net.to_owned()), rest),
        _ => (None, text),
    };
    let numbers = |text: &str| text.split(',').map(|part| number(part).ok()).collect::<Option<Vec<_>>>();
    let (file, numbers) = match rest.rsplit_once('@') {
        Some((file, text)) => match numbers(text) {
            Some(numbers) => (file, numbers),
            None if text.contains('.') && text.chars().any(char::is_alphabetic) => (rest, Vec::new()),
            None => {
                return Err(
                    "expected numbers after @, such as edges.png@0.8 or edges.png@0.8,0,0.5".to_owned()
                );
            }
        },
        None => (rest, Vec::new()),
    };
    let (scale, window) = match numbers[..] {
        [] => (None, None),
        [scale] => (Some(scale), None),
        [scale, start, end] => (Some(scale), Some([start, end])),
        _ => return Err("expected a scale, or a scale, a start and an end after @".to_owned()),
    };
    if file.is_empty() || net.as_ref().is_some_and(String::is_empty) {
        return Err("expected a ControlNet and a file, such as canny=edges.png@0.8".to_owned());
    }
    Ok(ControlArgument { net, file: PathBuf::from(file), scale, window })
}

impl ControlArguments {
    /// The controls of the job, if there are any. Reads the pictures.
    pub(super) fn requests(&self) -> anyhow::Result<Option<Vec<ControlRequest>>> {
        let request = |control: &ControlArgument| {
            let bytes = picture_file::read(&control.file).context("--control")?;
            Ok(ControlRequest {
                net: control.net.clone(),
                image: Attachment::from_bytes(&bytes),
                scale: control.scale,
                start: control.window.map(|[start, _]| start),
                end: control.window.map(|[_, end]| end),
                preprocess: None,
                resize: None,
            })
        };
        let requests = self.control.iter().map(request).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((!requests.is_empty()).then_some(requests))
    }

    /// Whether guess mode is set.
    pub(super) fn guess_mode(&self) -> Option<bool> {
        self.guess_mode.then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_is_a_file_with_a_net_a_scale_and_a_window() {
        let argument = |net: Option<&str>, file: &str, scale, window| {
            Ok(ControlArgument { net: net.map(str::to_owned), file: PathBuf::from(file), scale, window })
        };
        assert_eq!(control("edges.png"), argument(None, "edges.png", None, None));
        assert_eq!(control("canny=a/b.png@0.7"), argument(Some("canny"), "a/b.png", Some(0.7), None));
        let window = Some([0.2, 0.8]);
        assert_eq!(control("canny=b.png@0.7,0.2,0.8"), argument(Some("canny"), "b.png", Some(0.7), window));
        assert_eq!(control("a/x=1@2x.png"), argument(None, "a/x=1@2x.png", None, None));
        for (text, expected) in [
            ("b.png@0.7,0.2", "a scale, or a scale, a start and an end"),
            ("b.png@strong", "expected numbers after @"),
            ("canny=", "expected a ControlNet and a file"),
        ] {
            assert!(control(text).unwrap_err().contains(expected), "{text}");
        }
    }
}
