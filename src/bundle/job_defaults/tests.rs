use super::*;

const EULER: &str = "EulerDiscreteScheduler";
const FLOW: &str = "FlowMatchEulerDiscreteScheduler";

/// A folder of a family with a scheduler, under a name that says nothing.
fn folder(kind: PipelineKind, scheduler: &str) -> FolderFacts {
    FolderFacts {
        kind: Some(kind),
        paths: vec!["/models/mine".to_owned()],
        scheduler_class: scheduler.to_owned(),
        has_guidance_embedding: kind == PipelineKind::LatentConsistency,
        ..FolderFacts::default()
    }
}

fn trailing(kind: PipelineKind, scheduler: &str) -> FolderFacts {
    FolderFacts { spacing: Some("trailing".to_owned()), ..folder(kind, scheduler) }
}

fn named(name: &str, folder: FolderFacts) -> FolderFacts {
    FolderFacts { paths: vec![name.to_owned()], ..folder }
}

fn decide(folder: &FolderFacts) -> JobDefaults {
    JobDefaults::decide(folder, &Defaults::default())
}

/// Steps, guidance and η.
fn values(folder: &FolderFacts) -> (usize, f64, Option<f64>) {
    let defaults = decide(folder);
    (defaults.steps.value, defaults.guidance.value, defaults.eta.map(|eta| eta.value))
}

#[test]
fn models_for_few_steps_get_the_settings_of_their_documentation() {
    use PipelineKind::{
        Flux, Flux2Klein, LatentConsistency, StableDiffusion, StableDiffusion3, StableDiffusionXl, ZImage,
    };
    let sd = |scheduler| trailing(StableDiffusion, scheduler);
    let xl = |scheduler| trailing(StableDiffusionXl, scheduler);
    let sample = FolderFacts { prediction: Some("sample".to_owned()), ..xl(EULER) };
    let turbo_size = FolderFacts { sample_size: Some(64), ..xl(EULER) };
    let lcm_xl = FolderFacts { has_guidance_embedding: true, ..folder(StableDiffusionXl, "LCMScheduler") };
    let klein = FolderFacts { is_distilled: true, ..folder(Flux2Klein, FLOW) };
    let zimage = |shift| FolderFacts { shift: Some(shift), ..folder(ZImage, FLOW) };
    let first = FolderFacts { text_width: Some(768), ..sd(EULER) };
    for (facts, expected) in [
        (sd(EULER), (1, 0.0, None)),
        (xl("EulerAncestralDiscreteScheduler"), (1, 0.0, None)),
        (turbo_size, (1, 0.0, None)),
        (named("stabilityai/sdxl-turbo", xl(EULER)), (1, 0.0, None)),
        (xl(EULER), (4, 0.0, None)),
        (sample, (1, 0.0, None)),
        (named("sdxl_lightning_2step", xl(EULER)), (2, 0.0, None)),
        (named("Hyper-SDXL-8steps", xl("DDIMScheduler")), (8, 0.0, None)),
        (named("Hyper-SD15-12steps-CFG", sd("DDIMScheduler")), (12, 7.5, None)),
        (named("hyper-sd15-4step", first.clone()), (4, 0.0, None)),
        (named("hyper_sdxl_8steps", folder(StableDiffusionXl, "TCDScheduler")), (8, 0.0, Some(1.0))),
        (folder(StableDiffusion, "TCDScheduler"), (4, 0.0, Some(0.3))),
        (folder(StableDiffusion, "LCMScheduler"), (4, 1.0, None)),
        (folder(StableDiffusionXl, "LCMScheduler"), (4, 1.0, None)),
        (lcm_xl, (4, 8.0, None)),
        (folder(LatentConsistency, "LCMScheduler"), (4, 8.5, None)),
        (klein, (4, 1.0, None)),
        (zimage(3.0), (8, 0.0, None)),
        (named("Z-Image-Turbo", zimage(5.0)), (8, 0.0, None)),
        (named("stable-diffusion-3.5-large-turbo", folder(StableDiffusion3, FLOW)), (4, 0.0, None)),
        (folder(Flux, FLOW), (4, 0.0, None)),
        (named("SDXL-Lightning-4step", folder(StableDiffusionXl, EULER)), (4, 0.0, None)),
        (named("Hyper-SD-onnx", folder(StableDiffusion, "DDIMScheduler")), (4, 0.0, None)),
    ] {
        assert_eq!(values(&facts), expected, "{facts:?}");
    }
    let schnell = decide(&folder(Flux, FLOW));
    assert_eq!(schnell.max_sequence_length.map(|length| length.value), Some(256));
}

#[test]
fn other_models_keep_the_defaults_of_their_pipeline() {
    use PipelineKind::{
        Flux, Flux2Klein, PixArtSigma, StableDiffusion, StableDiffusion3, StableDiffusionXl, ZImage,
    };
    let (sd, xl, sd3) = ((50, 7.5, None), (50, 5.0, None), (28, 7.0, None));
    let v = |folder| FolderFacts { prediction: Some("v_prediction".to_owned()), ..folder };
    let other = |folder| FolderFacts { has_other_schedule: true, ..folder };
    let first = FolderFacts { text_width: Some(768), ..trailing(StableDiffusion, EULER) };
    let dev = FolderFacts { has_guidance_input: true, has_dynamic_shift: true, ..folder(Flux, FLOW) };
    let shifted = FolderFacts { has_dynamic_shift: true, ..folder(Flux, FLOW) };
    let base = FolderFacts { shift: Some(6.0), ..folder(ZImage, FLOW) };
    for (facts, expected) in [
        (trailing(StableDiffusion, "DPMSolverMultistepScheduler"), sd),
        (trailing(StableDiffusionXl, "DPMSolverMultistepScheduler"), xl),
        (trailing(StableDiffusion, "DDIMScheduler"), sd),
        (folder(StableDiffusionXl, EULER), xl),
        (first, sd),
        (v(trailing(StableDiffusionXl, EULER)), xl),
        (other(trailing(StableDiffusionXl, EULER)), xl),
        (named("turbo-cats", folder(StableDiffusion, "PNDMScheduler")), sd),
        (named("sd-turbo", folder(StableDiffusion, "PNDMScheduler")), sd),
        (named("turbo-cats", trailing(StableDiffusion, "DPMSolverMultistepScheduler")), sd),
        (named("lightning-storms-4step", folder(StableDiffusionXl, EULER)), xl),
        (named("sdxl-turbo", v(folder(StableDiffusionXl, EULER))), xl),
        (named("hyperrealism-xl", trailing(StableDiffusionXl, "DDIMScheduler")), xl),
        (named("turbo-cats", folder(StableDiffusion3, FLOW)), sd3),
        (dev, (28, 3.5, None)),
        (shifted, (28, 3.5, None)),
        (base.clone(), (50, 5.0, None)),
        (named("z-image-turbo", base), (50, 5.0, None)),
        (folder(Flux2Klein, FLOW), (50, 4.0, None)),
        (folder(PixArtSigma, "DPMSolverMultistepScheduler"), (20, 4.5, None)),
    ] {
        assert_eq!(values(&facts), expected, "{facts:?}");
    }
}

#[test]
fn a_model_without_a_prompt_has_no_guidance_unless_denoised_toml_sets_one() {
    let pixels =
        |scheduler: &str| FolderFacts { scheduler_class: scheduler.to_owned(), ..FolderFacts::default() };
    assert_eq!(values(&pixels("DDPMScheduler")), (50, 1.0, None));
    assert_eq!(values(&pixels("CMStochasticIterativeScheduler")), (1, 1.0, None));
}

#[test]
fn every_value_has_a_reason() {
    let lightning = named("/m/sdxl_lightning_4step", trailing(PipelineKind::StableDiffusionXl, EULER));
    let defaults = decide(&lightning);
    let by = "Lightning, by EulerDiscreteScheduler with timestep_spacing \"trailing\", and the name \
              \"sdxl_lightning_4step\"";
    assert_eq!(defaults.guidance.reason, by);
    assert_eq!(defaults.steps.reason, format!("{by}; the number is in the name \"sdxl_lightning_4step\""));
    assert_eq!(defaults.note, None);
    let ordinary = decide(&folder(PipelineKind::StableDiffusionXl, EULER));
    assert_eq!(ordinary.steps.reason, "the default of StableDiffusionXLPipeline");
}

#[test]
fn a_name_that_the_files_contradict_is_noted() {
    let cats = named("/m/turbo-cats", folder(PipelineKind::StableDiffusion, "PNDMScheduler"));
    let note = decide(&cats).note.unwrap();
    assert!(
        note.starts_with("the name \"turbo-cats\" is that of a model for few steps, but PNDMScheduler"),
        "{note}"
    );
    let set = Defaults { steps: Some(4), ..Defaults::default() };
    assert_eq!(JobDefaults::decide(&cats, &set).note, None);
    let leading = named("SDXL-Lightning", folder(PipelineKind::StableDiffusionXl, EULER));
    let note = decide(&leading).note.unwrap();
    assert!(note.contains("but EulerDiscreteScheduler has \"leading\""), "{note}");
}

#[test]
fn denoised_toml_replaces_each_value() {
    let turbo = trailing(PipelineKind::StableDiffusion, EULER);
    let set = Defaults { guidance: Some(2.0), ..Defaults::default() };
    let defaults = JobDefaults::decide(&turbo, &set);
    assert_eq!((defaults.steps.value, defaults.guidance.value), (1, 2.0));
    assert_eq!(defaults.guidance.reason, "[default] in denoised.toml");
    // No encoder of Stable Diffusion takes as many tokens as a job asks for.
    let set = Defaults { max_sequence_length: Some(77), ..Defaults::default() };
    assert_eq!(JobDefaults::decide(&turbo, &set).max_sequence_length, None);
}
