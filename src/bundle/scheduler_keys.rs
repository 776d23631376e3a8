//! The keys that schedulers have, and the one that an unknown key means.

use std::collections::{BTreeMap, BTreeSet};

use diffusion_samplers::sampler::{self, Options, Patches, SamplerError, SamplerSpec};
use diffusion_samplers::scheduler_settings::{KeyStatus, Settings, SettingsError, Value};

/// The least similarity of a key to the one that it means, by Jaro and Winkler.
const MIN_SIMILARITY: f64 = 0.85;

/// Reads the keys of a configuration as this sampler does. A `steps_offset` that only a single step is possible with is
/// no error: the number of steps is checked for each job.
pub(super) fn build(sampler: &SamplerSpec, settings: &mut Settings) -> Result<(), SamplerError> {
    let patches = Some(Patches { count: 4096, linear_sigmas: false, empirical_shift: false });
    let mut build = |steps| sampler.build(settings, &Options { patches, ..Options::new(steps) }).map(drop);
    match build(4) {
        Err(SamplerError::Setting(SettingsError::StepsOffset { .. })) => build(1),
        built => built,
    }
}

/// The keys of a configuration that some class of scheduler has, and those that every class reads without them: a job may
/// select a sampler of another class than the configuration's.
pub(super) fn known_keys(values: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for sampler in sampler::names().into_iter().filter_map(|name| sampler::by_name(name).ok()) {
        known.extend(keys_read_by(&sampler, BTreeMap::new()));
        known.extend(keys_read_by(&sampler, values.clone()));
    }
    // A value that one class refuses hides the keys that it reads later.
    for (key, value) in values {
        let alone = || BTreeMap::from([(key.clone(), value.clone())]);
        let mut samplers = sampler::names().into_iter().filter_map(|name| sampler::by_name(name).ok());
        if !known.contains(key) && samplers.any(|sampler| keys_read_by(&sampler, alone()).contains(key)) {
            known.insert(key.clone());
        }
    }
    known
}

/// The keys that a sampler's class has.
fn keys_read_by(sampler: &SamplerSpec, values: BTreeMap<String, Value>) -> BTreeSet<String> {
    let mut settings = Settings::new(values);
    // Keys are read before the steps are planned, which may fail for this number of them.
    let _ = build(sampler, &mut settings);
    let read = settings.report().into_iter().filter(|line| line.status != KeyStatus::Unknown);
    read.map(|line| line.key).collect()
}

/// Returns the known key that is spelt most like a key, if one is.
pub(super) fn nearest_key<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let similar = known.into_iter().map(|known| (strsim::jaro_winkler(key, known), known));
    let similar = similar.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY);
    similar.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of diffusers' schedulers that are served.
    const DIFFUSERS: &str = "\
        algorithm_type base_image_seq_len base_shift beta_end beta_schedule beta_start clip_denoised clip_sample \
        clip_sample_range correct_steps corrector_order disable_corrector dynamic_thresholding_ratio eta euler_at_final \
        final_sigmas_type flow_shift interpolation_type invert_sigmas lambda_min_clipped lower_order_final \
        max_image_seq_len max_shift noise_sampler_seed num_train_timesteps original_inference_steps predict_x0 \
        prediction_type predictor_order rescale_betas_zero_snr rho s_noise sample_max_value sampling_eps \
        scale_factors upscale_mode \
        set_alpha_to_one shift shift_terminal sigma_data sigma_max sigma_min sigma_schedule skip_prk_steps snr \
        solver_order solver_p solver_type steps_offset stochastic_sampling tau_func thresholding time_shift_type \
        timestep_scaling timestep_spacing timestep_type trained_betas use_beta_sigmas use_dynamic_shifting \
        use_exponential_sigmas use_flow_sigmas use_karras_sigmas use_lu_lambdas variance_type";

    #[test]
    fn every_key_of_diffusers_is_known() {
        let values = DIFFUSERS.split_whitespace().map(|key| (key.to_owned(), Value::Null)).collect();
        let known = known_keys(&values);
        let unknown: Vec<_> = DIFFUSERS.split_whitespace().filter(|key| !known.contains(*key)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    #[test]
    fn a_key_means_the_one_that_is_spelt_like_it() {
        let known = known_keys(&BTreeMap::new());
        let nearest =
            |key: &str| nearest_key(key, known.iter().map(String::as_str)).unwrap_or_default().to_owned();
        for (key, expected) in [
            ("beta_strat", "beta_start"),
            ("use_karras_sigma", "use_karras_sigmas"),
            ("predicton_type", "prediction_type"),
            ("num_train_timestep", "num_train_timesteps"),
            ("colour", ""),
        ] {
            assert_eq!(nearest(key), expected, "{key}");
        }
    }
}
