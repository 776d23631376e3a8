//! The graphs around a denoiser of latents, read and held against each other before any is opened.

use std::path::{Path, PathBuf};

use super::tokenizer::Tokenizer;
use super::{ModelError, text_encoder_checks};
use crate::bundle::{
    AutoencoderIo, Bundle, LatentComponents, LatentSizes, PipelineKind, Role, Signature, SignatureError,
    TextEncoderConfig, TextEncoderIo, embedding_shape,
};
use crate::tensor::{Dim, GraphIo};

/// The sizes and lengths that the graphs of a pipeline take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimits {
    /// The height and width of a latent must be multiples of this.
    pub latent_multiple: usize,
    /// The largest height and width of a latent, if the network bounds them.
    pub largest_latent: Option<usize>,
    /// The height and width of the decoder's latents, where its graph fixes them.
    pub decoded_latent: [Option<usize>; 2],
    /// The height and width of the encoder's pictures, where its graph fixes them.
    pub encoded_picture: [Option<usize>; 2],
    /// The default number of T5 tokens.
    pub sequence_length: usize,
    /// Whether the graphs take no other number of T5 tokens.
    pub fixes_sequence_length: bool,
    /// How many of CLIP's last layers can be skipped.
    pub largest_clip_skip: usize,
}

/// The graphs around a denoiser.
pub(super) struct PipelineGraphs {
    pub(super) components: LatentComponents,
    pub(super) kind: PipelineKind,
    pub(super) text_encoders: Vec<TextEncoderGraph>,
    pub(super) decoder: Option<(PathBuf, AutoencoderIo)>,
    pub(super) encoder: Option<(PathBuf, AutoencoderIo)>,
    pub(super) limits: SizeLimits,
}

/// The graph of a text encoder with its tokenizer.
pub(super) struct TextEncoderGraph {
    pub(super) path: PathBuf,
    pub(super) tokenizer: Tokenizer,
    pub(super) io: TextEncoderIo,
    pub(super) config: TextEncoderConfig,
}

impl PipelineGraphs {
    /// Reads the graphs around a bundle's denoiser. Returns `None` if the denoiser takes no text.
    pub(super) fn read(bundle: &Bundle, signature: &Signature) -> Result<Option<Self>, ModelError> {
        let Some(kind) = PipelineKind::from_signature(signature) else {
            return match signature.tensors.first() {
                None => Ok(None),
                Some(input) => {
                    Err(ModelError::NoTextInput { graph: bundle.graph.clone(), input: input.name.clone() })
                }
            };
        };
        bundle.check_components(kind)?;
        let Some(components) = &bundle.latent else { return Ok(None) };
        let (found, max) = (components.text_encoders.len(), *kind.facts().text_encoders.end());
        if found > max {
            return Err(ModelError::TooManyTextEncoders { name: bundle.name.clone(), found, max });
        }
        let text_encoders =
            components.text_encoders.iter().enumerate().zip(&components.tokenizer_classes).map(
                |((i, (path, tokenizer)), class)| {
                    TextEncoderGraph::read(bundle, path, (tokenizer, class.as_deref()), kind, (i, found))
                },
            );
        let text_encoders = text_encoders.collect::<Result<Vec<_>, _>>()?;
        let decoder = autoencoder(bundle, components.decoder.as_deref(), components, AutoencoderIo::decoder)?;
        let encoder = autoencoder(bundle, components.encoder.as_deref(), components, AutoencoderIo::encoder)?;
        let (sequence_length, fixes_sequence_length) =
            sequence_length(bundle, kind, &text_encoders, signature)?;
        check_widths(bundle, kind, &text_encoders, signature, components)?;
        let size =
            |half: &Option<(PathBuf, AutoencoderIo)>| half.as_ref().map_or([None; 2], |(_, io)| io.size);
        let latents = LatentSizes::read(&bundle.graph)?;
        let limits = SizeLimits {
            latent_multiple: latents.multiple,
            largest_latent: latents.largest,
            decoded_latent: size(&decoder),
            encoded_picture: size(&encoder),
            sequence_length,
            fixes_sequence_length,
            largest_clip_skip: largest_clip_skip(kind, &text_encoders),
        };
        check_sizes(signature, components.vae.factor, decoder.as_ref(), encoder.as_ref())?;
        let vae = components.vae.reduced_to(kind.facts().latent_scaling);
        let components = LatentComponents { vae, ..components.clone() };
        Ok(Some(Self { components, kind, text_encoders, decoder, encoder, limits }))
    }
}

impl TextEncoderGraph {
    fn read(
        bundle: &Bundle,
        path: &Path,
        (tokenizer_path, tokenizer_class): (&Path, Option<&str>),
        kind: PipelineKind,
        (index, count): (usize, usize),
    ) -> Result<Self, ModelError> {
        let mut io = resolve(bundle, path, TextEncoderIo::resolve)?;
        let mut config = TextEncoderConfig::read(path)?;
        let tokenizer = Tokenizer::open(tokenizer_path, tokenizer_class, config.max_position_embeddings)?;
        let embedding = embedding_shape(path, &io.ids)?;
        let fault = |fault: String| mismatch(path, fault);
        text_encoder_checks::check_config(&io, &config, embedding).map_err(fault)?;
        let vocabulary = config.vocab_size.or(embedding.map(|[rows, _]| rows));
        tokenizer.check_vocabulary(tokenizer_path, vocabulary, path)?;
        // The other pipelines of diffusers never mask.
        config.use_attention_mask &=
            matches!(kind, PipelineKind::StableDiffusion | PipelineKind::LatentConsistency);
        let is_t5 = Some(index) == kind.facts().t5;
        if let Some(length) = io.length.filter(|length| *length != tokenizer.length && !is_t5) {
            let fault = format!(
                "its input {} takes {length} tokens, but the tokenizer in {} pads prompts to {}; export the text encoder \
                 with a dynamic length, or with that one",
                io.ids,
                tokenizer_path.display(),
                tokenizer.length
            );
            return Err(mismatch(path, fault));
        }
        if let Some(max) = config.max_position_embeddings.filter(|max| tokenizer.length > *max && !is_t5) {
            let fault = format!(
                "it has positions for {max} tokens (max_position_embeddings in its config.json), but the tokenizer in {} \
                 pads prompts to {}: they are not of one model, so export both again",
                tokenizer_path.display(),
                tokenizer.length
            );
            return Err(mismatch(path, fault));
        }
        text_encoder_checks::check_outputs(&mut io, kind, (index, count)).map_err(fault)?;
        if io.pooled.is_some() {
            let graph = &bundle.files(path)?.header.io;
            text_encoder_checks::choose_pooled(graph, &mut io, &config, kind).map_err(fault)?;
        }
        // Exports of CLIP leave these widths out, or declare them as dynamic.
        let is_projected = io.pooled.as_deref() == Some("text_embeds");
        let pooled_width = if is_projected { config.projection_dim } else { config.hidden_size };
        io.width = io.width.or(config.hidden_size);
        io.pooled_width = io.pooled_width.or(pooled_width);
        Ok(Self { path: path.to_owned(), tokenizer, io, config })
    }
}

/// Finds the meaning of a graph's inputs and outputs.
fn resolve<T>(
    bundle: &Bundle,
    path: &Path,
    meaning: impl FnOnce(&GraphIo) -> Result<T, SignatureError>,
) -> Result<T, ModelError> {
    meaning(&bundle.files(path)?.header.io)
        .map_err(|error| ModelError::Signature { graph: path.to_owned(), error })
}

fn autoencoder(
    bundle: &Bundle,
    path: Option<&Path>,
    components: &LatentComponents,
    meaning: impl FnOnce(&GraphIo, crate::bundle::VaeConfig) -> Result<AutoencoderIo, SignatureError>,
) -> Result<Option<(PathBuf, AutoencoderIo)>, ModelError> {
    let read =
        |path: &Path| Ok((path.to_owned(), resolve(bundle, path, |graph| meaning(graph, components.vae))?));
    path.map(read).transpose()
}

fn mismatch(graph: &Path, fault: impl Into<String>) -> ModelError {
    ModelError::Mismatch { graph: graph.to_owned(), fault: fault.into() }
}

/// How many layers every CLIP text encoder of a pipeline has to skip. The first one, the token embeddings, is none of them.
fn largest_clip_skip(kind: PipelineKind, text_encoders: &[TextEncoderGraph]) -> usize {
    // The other pipelines read the last layer but one without skipping any.
    let is_last_read = matches!(kind, PipelineKind::StableDiffusion | PipelineKind::LatentConsistency);
    let kept = if is_last_read { 2 } else { 3 };
    let clip = text_encoders.iter().enumerate().filter(|(i, _)| Some(*i) != kind.facts().t5);
    clip.map(|(_, encoder)| encoder.io.hidden.len().saturating_sub(kept)).min().unwrap_or(0)
}

/// The number of T5 tokens, and whether the graphs fix it. Checks the network's number of text rows.
fn sequence_length(
    bundle: &Bundle,
    kind: PipelineKind,
    text_encoders: &[TextEncoderGraph],
    signature: &Signature,
) -> Result<(usize, bool), ModelError> {
    let facts = kind.facts();
    let clip = text_encoders.first().map_or(0, |encoder| encoder.tokenizer.length);
    let fixed = |role: Role| {
        let input = signature.tensors.iter().find(|input| input.role == role)?;
        input.shape.iter().rev().nth(1)?.length()
    };
    let rows = fixed(Role::Text).or(fixed(Role::TextIds));
    let wrong_rows = |rows: usize, given: String| {
        let fault = format!(
            "it takes {rows} tokens of text, but the text encoders give {given}; export the network with a dynamic \
             sequence length, or with that one"
        );
        mismatch(&bundle.graph, fault)
    };
    let Some(t5) = facts.t5 else {
        return match rows {
            Some(rows) if rows != clip => Err(wrong_rows(rows, clip.to_string())),
            _ => Ok((facts.sequence_length, false)),
        };
    };
    // Stable Diffusion 3 puts the rows of CLIP before those of T5.
    let before = if kind == PipelineKind::StableDiffusion3 { clip } else { 0 };
    let of_network =
        match rows.map(|rows| rows.checked_sub(before).filter(|rows| *rows > 0).ok_or(rows)).transpose() {
            Ok(of_network) => of_network,
            Err(rows) => return Err(wrong_rows(rows, format!("{before} and those of T5"))),
        };
    let of_encoder = text_encoders.get(t5).and_then(|encoder| encoder.io.length);
    match (of_network, of_encoder) {
        (Some(network), Some(encoder)) if network != encoder => {
            Err(wrong_rows(network + before, (encoder + before).to_string()))
        }
        (network, encoder) => match network.or(encoder) {
            Some(length) => Ok((length, true)),
            None => Ok((facts.sequence_length, false)),
        },
    }
}

/// Checks that the network takes embeddings of the width that the text encoders give.
fn check_widths(
    bundle: &Bundle,
    kind: PipelineKind,
    text_encoders: &[TextEncoderGraph],
    signature: &Signature,
    components: &LatentComponents,
) -> Result<(), ModelError> {
    let width = |index: usize| text_encoders.get(index).and_then(|encoder| encoder.io.width);
    let pooled = |index: usize| text_encoders.get(index).and_then(|encoder| encoder.io.pooled_width);
    let sum = |widths: Vec<Option<usize>>| widths.into_iter().sum::<Option<usize>>();
    let all = || (0..text_encoders.len()).map(width).collect();
    let (text, pooled) = match kind {
        PipelineKind::StableDiffusion | PipelineKind::LatentConsistency => (width(0), None),
        PipelineKind::StableDiffusionXl => (sum(all()), pooled(text_encoders.len() - 1)),
        PipelineKind::StableDiffusion3 => {
            let clip = sum(vec![width(0), width(1)]);
            let t5 = if text_encoders.len() > 2 { width(2) } else { components.joint_attention_dim };
            (clip.zip(t5).map(|(clip, t5)| clip.max(t5)), sum(vec![pooled(0), pooled(1)]))
        }
        PipelineKind::Flux => (width(1), pooled(0)),
    };
    for (role, given, what) in
        [(Role::Text, text, "text embeddings"), (Role::Pooled, pooled, "pooled embeddings")]
    {
        let input = signature.tensors.iter().find(|input| input.role == role);
        let taken = input.and_then(|input| input.shape.last().and_then(Dim::length));
        if let Some((given, taken)) = given.zip(taken).filter(|(given, taken)| given != taken) {
            let fault = format!(
                "it takes {what} of width {taken}, but the text encoders give {given}: they are not of one model, so \
                 export the whole pipeline again"
            );
            return Err(mismatch(&bundle.graph, fault));
        }
    }
    Ok(())
}

/// Checks that the halves of an autoencoder take the sizes of each other, and of a network of a fixed size.
fn check_sizes(
    signature: &Signature,
    factor: usize,
    decoder: Option<&(PathBuf, AutoencoderIo)>,
    encoder: Option<&(PathBuf, AutoencoderIo)>,
) -> Result<(), ModelError> {
    let network = match signature.sample_shape[..] {
        [_, height, width] if !signature.dynamic_size => [Some(height), Some(width)],
        _ => [None; 2],
    };
    let decoded = decoder.map_or([None; 2], |(_, io)| io.size);
    let encoded = encoder.map_or([None; 2], |(_, io)| io.size.map(|side| side.map(|pixels| pixels / factor)));
    for (half, own, others) in [(decoder, decoded, [network; 2]), (encoder, encoded, [network, decoded])] {
        let differs = |other: &[Option<usize>; 2]| {
            own.iter().zip(other).any(|(own, other)| own.zip(*other).is_some_and(|(own, other)| own != other))
        };
        if let (Some((path, io)), Some(other)) = (half, others.iter().find(|other| differs(other))) {
            let fault = format!(
                "its input {} has the size {} (height×width) in latents, but the other graphs have {}; export them for one \
                 size, or with dynamic axes",
                io.input,
                in_words(own),
                in_words(*other)
            );
            return Err(mismatch(path, fault));
        }
    }
    Ok(())
}

fn in_words(size: [Option<usize>; 2]) -> String {
    let [height, width] = size.map(|side| side.map_or("?".to_owned(), |side| side.to_string()));
    format!("{height}×{width}")
}
