//! How the graph of an autoencoder's encoder or decoder is fed and read.

use super::VaeConfig;
use super::signature::{SignatureError, floating, list, unsupported};
use crate::tensor::{Dim, GraphIo, ValueInfo};

/// The channels of a picture.
const PICTURE_CHANNELS: usize = 3;

/// How one half of an autoencoder is fed and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoencoderIo {
    /// The input.
    pub input: String,
    /// The output.
    pub output: String,
    /// The number of pictures in one evaluation.
    pub batch: usize,
    /// The height and width of the input, where the graph fixes them.
    pub size: [Option<usize>; 2],
}

impl AutoencoderIo {
    /// The input and the output of a decoder.
    pub fn decoder(graph: &GraphIo, vae: VaeConfig) -> Result<Self, SignatureError> {
        let scale = |length: usize| length.checked_mul(vae.factor);
        Self::resolve(graph, vae.channels, &["sample", "image"], &[PICTURE_CHANNELS], &scale)
    }

    /// The input and the output of an encoder: the parameters of a distribution, or a latent.
    pub fn encoder(graph: &GraphIo, vae: VaeConfig) -> Result<Self, SignatureError> {
        let scale = |length: usize| length.is_multiple_of(vae.factor).then_some(length / vae.factor);
        let names = ["latent_parameters", "latent_dist", "latent_sample", "latents"];
        Self::resolve(graph, PICTURE_CHANNELS, &names, &[vae.channels, 2 * vae.channels], &scale)
    }

    fn resolve(
        graph: &GraphIo,
        channels: usize,
        output_names: &[&str],
        output_channels: &[usize],
        scale: &dyn Fn(usize) -> Option<usize>,
    ) -> Result<Self, SignatureError> {
        let is_picture = |input: &&ValueInfo| input.shape.len() == 4;
        let Some(input) = graph.inputs.iter().find(is_picture).or(graph.inputs.first()) else {
            return Err(SignatureError::NoPicture { inputs: list(&graph.inputs) });
        };
        if let Some(other) = graph.inputs.iter().find(|other| other.name != input.name) {
            let reason = "an autoencoder is fed with one input; export the graph without this one";
            return Err(unsupported(other, reason));
        }
        floating(input)?;
        let [rows, own, height, width] = input.shape.as_slice() else {
            let reason = match input.shape.len() {
                5 => "five axes are those of a video's autoencoder, which is not served",
                _ => "an autoencoder takes four axes: batch, channels, height and width",
            };
            return Err(unsupported(input, reason));
        };
        if let Some(found) = own.length().filter(|found| *found != channels) {
            let reason = format!(
                "it takes {found} channels, but is fed with {channels}: the graph and latent_channels in its config.json \
                 are not of one model, so export both again"
            );
            return Err(unsupported(input, reason));
        }
        let size = [height.length(), width.length()];
        let output = suitable_output(graph, output_names, output_channels, size, scale)?;
        Ok(Self {
            input: input.name.clone(),
            output: output.name.clone(),
            batch: rows.length().filter(|rows| *rows > 0).unwrap_or(1),
            size,
        })
    }
}

/// The output that has the right axes, those with usual names first.
fn suitable_output<'a>(
    graph: &'a GraphIo,
    names: &[&str],
    channels: &[usize],
    size: [Option<usize>; 2],
    scale: &dyn Fn(usize) -> Option<usize>,
) -> Result<&'a ValueInfo, SignatureError> {
    let has_length = |axis: &Dim, from: Option<usize>| match (axis.length(), from) {
        (Some(found), Some(from)) => scale(from) == Some(found),
        _ => true,
    };
    let fits = |output: &&ValueInfo| {
        let has_axes = match output.shape.as_slice() {
            // Not declared, so that the first evaluation is checked instead.
            [] => true,
            [_, own, height, width] => {
                own.length().is_none_or(|own| channels.contains(&own))
                    && has_length(height, size[0])
                    && has_length(width, size[1])
            }
            _ => false,
        };
        !output.element.is_integer() && has_axes
    };
    let named = names.iter().filter_map(|name| graph.outputs.iter().find(|output| output.name == *name));
    named.into_iter().find(fits).or_else(|| graph.outputs.iter().find(fits)).ok_or_else(|| {
        let channels: Vec<_> = channels.iter().map(usize::to_string).collect();
        let side = |length: Option<usize>| length.and_then(scale).map_or("?".to_owned(), |n| n.to_string());
        SignatureError::NoSuitableOutput {
            expected: format!(
                "a picture or latent with the axes [?, {}, {}, {}]",
                channels.join(" or "),
                side(size[0]),
                side(size[1])
            ),
            outputs: list(&graph.outputs),
            advice: "latent_channels and block_out_channels in the config.json beside the graph must be those of the \
                     graph; export both again",
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    const VAE: VaeConfig = VaeConfig {
        channels: 4,
        factor: 8,
        scaling: 1.0,
        shift: 0.0,
        statistics: None,
        is_deterministic: false,
    };

    fn value(name: &str, shape: &[Option<usize>]) -> ValueInfo {
        ValueInfo::with_axes(name, DataType::F32, shape)
    }

    fn graph(inputs: &[ValueInfo], outputs: &[ValueInfo]) -> GraphIo {
        GraphIo { inputs: inputs.to_vec(), outputs: outputs.to_vec() }
    }

    #[test]
    fn fixed_axes_are_read_from_the_graph() {
        let fixed = graph(
            &[value("z", &[Some(2), Some(4), Some(64), None])],
            &[value("mid", &[None, None, Some(8)]), value("y", &[Some(2), Some(3), Some(512), None])],
        );
        let io = AutoencoderIo::decoder(&fixed, VAE).unwrap();
        assert_eq!((io.input.as_str(), io.output.as_str(), io.batch), ("z", "y", 2));
        assert_eq!(io.size, [Some(64), None]);
    }

    #[test]
    fn graphs_of_another_model_are_refused() {
        let picture = value("sample", &[None, Some(3), None, None]);
        let latents = |channels| value("latent_sample", &[None, Some(channels), None, None]);
        for (inputs, outputs, expected) in [
            (vec![latents(16)], vec![picture.clone()], "takes 16 channels, but is fed with 4"),
            (vec![latents(4)], vec![value("y", &[None, Some(4), None, None])], "[?, 3, ?, ?]"),
            (
                vec![value("z", &[None, Some(4), Some(64), Some(64)])],
                vec![value("y", &[None, Some(3), Some(256), Some(256)])],
                "[?, 3, 512, 512]",
            ),
            (vec![latents(4), value("timestep", &[None])], vec![picture.clone()], "timestep"),
            (vec![value("z", &[None, Some(4), None, None, None])], vec![picture.clone()], "video"),
            (Vec::new(), vec![picture.clone()], "no input"),
        ] {
            let error = AutoencoderIo::decoder(&graph(&inputs, &outputs), VAE).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let other = graph(&[picture], &[value("latent_sample", &[None, Some(5), None, None])]);
        assert!(AutoencoderIo::encoder(&other, VAE).is_err());
    }
}
