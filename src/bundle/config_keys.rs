//! The keys of the configurations in a bundle: which ones are used, which ones have no effect on an exported graph, and
//! which ones cannot be served.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::autoencoder_config::AUTOENCODER_OF_FLUX2;
use super::json_file::read_or_default;
use super::model_index::refused_class;
use super::{BundleError, PipelineKind, TEXT_ENCODERS, text_model};

/// What a configuration describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigKind {
    /// The denoiser.
    Network,
    /// An autoencoder.
    Autoencoder,
    /// A text encoder.
    TextEncoder,
    /// tokenizer_config.json.
    Tokenizer,
    /// A ControlNet.
    ControlNet,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The program reads it.
    Used,
    /// It describes what the graph computes, how it was trained, or the files.
    WithoutEffect,
    /// The program does not know it.
    Unknown,
}

// Keys, separated by blanks.

/// The keys of every diffusers and transformers configuration that say nothing about numbers.
const BOOKKEEPING: &str = "\
    _class_name _diffusers_version _name_or_path _commit_hash _use_default_values transformers_version \
    torch_dtype dtype architectures model_type export_model_type quantization_config";

const NETWORK_USED: &str = "\
    in_channels sample_size num_class_embeds joint_attention_dim down_block_types block_out_channels \
    patch_size pos_embed_max_size _diffusers_version _class_name _name_or_path timestep_scale \
    guidance_embeds_scale";

/// The keys of UNet2DModel, UNet2DConditionModel, UNet1DModel, SD3Transformer2DModel and FluxTransformer2DModel.
const NETWORK_WITHOUT_EFFECT: &str = "\
    act_fn add_attention addition_embed_type addition_embed_type_num_heads addition_time_embed_dim \
    attention_head_dim attention_type attn_norm_num_groups axes_dims_rope \
    caption_projection_dim center_input_sample class_embed_type class_embeddings_concat conv_in_kernel \
    conv_out_kernel cross_attention_dim cross_attention_norm downsample_each_block \
    downsample_padding downsample_type dropout dual_attention_layers dual_cross_attention \
    encoder_hid_dim encoder_hid_dim_type extra_in_channels flip_sin_to_cos freq_shift guidance_embeds \
    layers_per_block mid_block_only_cross_attention mid_block_scale_factor mid_block_type norm_eps \
    norm_num_groups num_attention_heads num_layers num_single_layers num_train_timesteps \
    only_cross_attention out_block_type out_channels pooled_projection_dim \
    projection_class_embeddings_input_dim qk_norm resnet_out_scale_factor resnet_skip_time_act \
    resnet_time_scale_shift reverse_transformer_layers_per_block sample_rate time_cond_proj_dim \
    time_embedding_act_fn time_embedding_dim time_embedding_type timestep_post_act \
    transformer_layers_per_block up_block_types upcast_attention upsample_type use_linear_projection \
    use_timestep_embedding";

/// The keys of ControlNetModel beside those of a network. The order of channels is changed in the graph.
const CONTROLNET_WITHOUT_EFFECT: &str = "\
    block_out_channels conditioning_channels conditioning_embedding_out_channels \
    controlnet_conditioning_channel_order down_block_types in_channels num_class_embeds";

/// The keys by which latents are converted and sized. The class says whether an encoder gives a distribution.
pub(super) const AUTOENCODER_USED: [&str; 8] = [
    "_class_name",
    "latent_channels",
    "block_out_channels",
    "encoder_block_out_channels",
    "scaling_factor",
    "shift_factor",
    "latents_mean",
    "latents_std",
];

/// The keys of AutoencoderKL, AutoencoderTiny, AutoencoderDC and AutoencoderKLFlux2, whose graphs contain their batch norm.
const AUTOENCODER_WITHOUT_EFFECT: &str = "\
    act_fn batch_norm_eps batch_norm_momentum patch_size attention_head_dim decoder_act_fns decoder_block_out_channels decoder_block_types decoder_conv_act_fn \
    decoder_in_shortcut decoder_layers_per_block decoder_norm_types decoder_qkv_multiscales down_block_out_channels \
    down_block_types downsample_block_type encoder_block_types encoder_layers_per_block encoder_out_shortcut \
    encoder_qkv_multiscales force_upcast in_channels \
    latent_magnitude latent_shift layers_per_block layers_per_down_block layers_per_up_block \
    mid_block_add_attention norm_num_groups num_decoder_blocks num_encoder_blocks out_channels \
    sample_size up_block_out_channels up_block_types upsample_block_type upsample_fn upsampling_scaling_factor \
    use_post_quant_conv use_quant_conv";

const TEXT_ENCODER_USED: &str = "\
    vocab_size max_position_embeddings use_attention_mask eos_token_id hidden_size d_model projection_dim \
    num_hidden_layers";

/// The keys of CLIPTextConfig and T5Config.
const TEXT_ENCODER_WITHOUT_EFFECT: &str = "\
    add_cross_attention attention_dropout bad_words_ids begin_suppress_tokens bos_token_id \
    chunk_size_feed_forward classifier_dropout cross_attention_hidden_size d_ff d_kv \
    decoder_start_token_id dense_act_fn diversity_penalty do_sample dropout dropout_rate early_stopping \
    encoder_no_repeat_ngram_size exponential_decay_length_penalty feed_forward_proj finetuning_task \
    forced_bos_token_id forced_eos_token_id gradient_checkpointing hidden_act id2label \
    initializer_factor initializer_range intermediate_size is_decoder is_encoder_decoder is_gated_act \
    label2id layer_norm_eps layer_norm_epsilon length_penalty max_length min_length n_positions \
    no_repeat_ngram_size num_attention_heads num_beam_groups num_beams num_decoder_layers num_heads \
    num_layers num_return_sequences output_attentions output_hidden_states output_past \
    output_scores pad_token_id prefix problem_type pruned_heads \
    relative_attention_max_distance relative_attention_num_buckets remove_invalid_values \
    repetition_penalty return_dict return_dict_in_generate scale_decoder_outputs sep_token_id \
    suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder \
    tie_word_embeddings tokenizer_class top_k top_p torchscript typical_p use_bfloat16 use_cache";

const TOKENIZER_USED: &str = "\
    added_tokens_decoder additional_special_tokens bos_token cls_token eos_token extra_special_tokens \
    mask_token max_len model_max_length pad_token padding_side sep_token split_special_tokens \
    tokenizer_class truncation_side unk_token";

const TOKENIZER_WITHOUT_EFFECT: &str = "\
    add_bos_token add_eos_token add_prefix_space auto_map backend chat_template \
    clean_up_tokenization_spaces do_lower_case errors extra_ids fix_mistral_regex init_inputs is_local \
    legacy local_files_only max_length merges_file model_input_names name_or_path pad_to_multiple_of \
    pad_token_type_id processor_class sp_model_kwargs spaces_between_special_tokens \
    special_tokens_map_file stride tokenizer_file truncation_strategy trust_remote_code \
    use_default_system_prompt use_fast vocab_file";

impl ConfigKind {
    /// What is known of a key.
    pub(super) fn known(self, key: &str) -> Known {
        let (used, without_effect) = match self {
            Self::Network => (NETWORK_USED, NETWORK_WITHOUT_EFFECT),
            Self::Autoencoder => ("", AUTOENCODER_WITHOUT_EFFECT),
            Self::TextEncoder => (TEXT_ENCODER_USED, TEXT_ENCODER_WITHOUT_EFFECT),
            Self::Tokenizer => (TOKENIZER_USED, TOKENIZER_WITHOUT_EFFECT),
            Self::ControlNet => ("global_pool_conditions", CONTROLNET_WITHOUT_EFFECT),
        };
        let is_in = |keys: &str| keys.split_whitespace().any(|known| known == key);
        let is_of_family = match self {
            Self::Network => PipelineKind::ALL.into_iter().any(|kind| is_in(kind.facts().network_keys)),
            Self::TextEncoder => text_model::ALL.into_iter().any(|model| is_in(model.config_keys)),
            Self::ControlNet => is_in(NETWORK_WITHOUT_EFFECT),
            Self::Autoencoder | Self::Tokenizer => false,
        };
        if is_in(used) || self == Self::Autoencoder && AUTOENCODER_USED.contains(&key) {
            Known::Used
        } else if is_in(without_effect) || is_of_family || is_in(BOOKKEEPING) {
            Known::WithoutEffect
        } else {
            Known::Unknown
        }
    }

    /// Whether a key describes what the graph computes. That is so for a batch norm only in the graphs of FLUX.2.
    fn describes_graph(self, keys: &Map<String, Json>, key: &str) -> bool {
        let is_of_flux2 = keys.get("_class_name").and_then(Json::as_str) == Some(AUTOENCODER_OF_FLUX2);
        self.known(key) != Known::Unknown && (is_of_flux2 || !key.starts_with("batch_norm"))
    }

    /// Why this value of a key cannot be served.
    fn refusal(self, component: &str, keys: &Map<String, Json>, key: &str, value: &Json) -> Option<String> {
        let text = value.as_str();
        match (self, key) {
            (Self::Network | Self::Autoencoder, "_class_name") => refused_class(component, "", text?),
            (Self::Network, "class_embed_type") => text.map(|kind| {
                format!(
                    "{key} is {kind:?}: the network takes an embedding as its class, which is not supported"
                )
            }),
            (Self::Network, "encoder_hid_dim_type") => {
                text.filter(|kind| kind.contains("image")).map(image_input(key))
            }
            (Self::Network, "addition_embed_type") => {
                text.filter(|kind| kind.contains("image")).map(image_input(key))
            }
            (Self::TextEncoder, "model_type") => {
                let starts = text_model::ALL.into_iter().flat_map(|model| model.model_types);
                let kind = text.filter(|kind| !starts.clone().any(|start| kind.starts_with(start)))?;
                let titles: Vec<_> = text_model::ALL.iter().map(|model| model.title).collect();
                Some(format!(
                    "{key} is {kind:?}, but only text encoders of {} are supported",
                    titles.join(", ")
                ))
            }
            (Self::Tokenizer, "tokenizer_class") => refused_class("tokenizer", "transformers", text?),
            (Self::Autoencoder, key) if !value.is_null() && !self.describes_graph(keys, key) => {
                let scales = ["latents_", "batch_norm"].iter().any(|start| key.starts_with(start))
                    || ["scaling", "scale_factor", "shift"].iter().any(|part| key.contains(part))
                    || ["_mean", "_std"].iter().any(|end| key.ends_with(end));
                scales.then(|| {
                    format!(
                        "{key} changes the latents in a way that is not supported; if the graph contains it, remove the key"
                    )
                })
            }
            _ => None,
        }
    }
}

fn image_input(key: &str) -> impl Fn(&str) -> String {
    let key = key.to_owned();
    move |kind| {
        format!("{key} is {kind:?}: the network takes the embedding of an image, which is not supported")
    }
}

/// Reads the keys of a file. A missing file has none.
pub(super) fn read_keys(path: &Path) -> Result<Map<String, Json>, BundleError> {
    read_or_default(path)
}

/// The configurations beside the graphs and tokenizers of a bundle, relative to it, and what they describe.
pub(super) fn configurations(directory: &Path, graph: &Path) -> Vec<(String, ConfigKind)> {
    let relative = graph.strip_prefix(directory).unwrap_or(graph).with_file_name("config.json");
    let mut files = vec![(relative.to_string_lossy().into_owned(), ConfigKind::Network)];
    files.extend(
        ["vae_decoder", "vae_encoder", "vae"]
            .map(|folder| (format!("{folder}/config.json"), ConfigKind::Autoencoder)),
    );
    for (encoder, tokenizer) in TEXT_ENCODERS {
        files.push((format!("{encoder}/config.json"), ConfigKind::TextEncoder));
        files.push((format!("{tokenizer}/tokenizer_config.json"), ConfigKind::Tokenizer));
    }
    files.retain(|(file, _)| directory.join(file).is_file());
    files
}

/// Checks that no configuration has a key that changes numbers and is not supported.
pub(super) fn check_all(directory: &Path, graph: &Path) -> Result<(), BundleError> {
    for (file, kind) in configurations(directory, graph) {
        let path = directory.join(&file);
        let component = file.split('/').next().unwrap_or_default();
        let keys = read_keys(&path)?;
        for (key, value) in &keys {
            if let Some(fault) = kind.refusal(component, &keys, key, value) {
                let fault = if fault.starts_with(key) { fault } else { format!("{key}: {fault}") };
                return Err(BundleError::Content { path, fault });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::{Deserialize, Deserializer, Error, Visitor};

    use super::*;
    use crate::bundle::autoencoder_config::VaeFile;
    use crate::bundle::latent_components::TransformerFile;
    use crate::bundle::latent_sizes::NetworkBlocks;
    use crate::bundle::network_size::NetworkConfig;
    use crate::bundle::text_encoder_io::TextEncoderFile;

    /// Records the fields of a structure that is deserialized.
    struct Fields<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("no structure"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend(fields);
            Err(Error::custom("only the fields are needed"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn fields<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
        let mut fields = Vec::new();
        assert!(T::deserialize(Fields(&mut fields)).is_err());
        fields
    }

    #[test]
    fn a_key_is_called_used_if_and_only_if_the_program_reads_it() {
        let network = [fields::<NetworkConfig>(), fields::<NetworkBlocks>(), fields::<TransformerFile>()];
        for (read, listed) in [
            (network.concat(), NETWORK_USED.split_whitespace().collect::<Vec<_>>()),
            (fields::<VaeFile>(), AUTOENCODER_USED.to_vec()),
            (fields::<TextEncoderFile>(), TEXT_ENCODER_USED.split_whitespace().collect()),
        ] {
            assert_eq!(BTreeSet::from_iter(read), BTreeSet::from_iter(listed));
        }
    }

    #[test]
    fn a_key_is_in_one_list() {
        for (used, without_effect) in [
            (NETWORK_USED, NETWORK_WITHOUT_EFFECT),
            (TEXT_ENCODER_USED, TEXT_ENCODER_WITHOUT_EFFECT),
            (TOKENIZER_USED, TOKENIZER_WITHOUT_EFFECT),
        ] {
            let mut keys: Vec<_> = used.split_whitespace().chain(without_effect.split_whitespace()).collect();
            keys.sort_unstable();
            assert_eq!(keys.windows(2).find(|pair| pair[0] == pair[1]), None);
        }
    }

    #[test]
    fn keys_that_change_numbers_and_are_not_served_are_refused() {
        for (kind, key, value, refused) in [
            (ConfigKind::Autoencoder, "scaling_factor", "0.5", false),
            (ConfigKind::Autoencoder, "latents_mean", "[1, 2, 3, 4]", false),
            (ConfigKind::Autoencoder, "latents_scale", "2.0", true),
            (ConfigKind::Autoencoder, "latents_scale", "null", false),
            (ConfigKind::Autoencoder, "batch_norm_eps", "0.0001", true),
            (ConfigKind::Autoencoder, "patch_size", "[2, 2]", false),
            (ConfigKind::Network, "class_embed_type", "\"timestep\"", true),
            (ConfigKind::Network, "class_embed_type", "null", false),
            (ConfigKind::Network, "addition_embed_type", "\"text_time\"", false),
            (ConfigKind::Network, "addition_embed_type", "\"text_image\"", true),
            (ConfigKind::Network, "_class_name", "\"UNet2DConditionModel\"", false),
            (ConfigKind::Network, "_class_name", "\"UNetOfMyOwn\"", false),
            (ConfigKind::Network, "_class_name", "\"UNet3DConditionModel\"", true),
            (ConfigKind::Network, "_class_name", "\"SanaTransformer2DModel\"", false),
            (ConfigKind::Network, "_class_name", "\"LuminaNextDiT2DModel\"", true),
            (ConfigKind::TextEncoder, "model_type", "\"clip_text_model\"", false),
            (ConfigKind::TextEncoder, "model_type", "\"gemma2\"", false),
            (ConfigKind::TextEncoder, "model_type", "\"llama\"", true),
            (ConfigKind::Tokenizer, "tokenizer_class", "\"CLIPTokenizer\"", false),
            (ConfigKind::Tokenizer, "tokenizer_class", "\"GemmaTokenizer\"", false),
            (ConfigKind::Tokenizer, "tokenizer_class", "\"LlamaTokenizer\"", true),
        ] {
            let value: Json = serde_json::from_str(value).unwrap();
            let is_transformer =
                value.as_str().is_some_and(|class| class.contains("DiT") || class.contains("Transformer"));
            let component = if is_transformer { "transformer" } else { "unet" };
            assert_eq!(kind.refusal(component, &Map::new(), key, &value).is_some(), refused, "{key} {value}");
        }
    }
}
