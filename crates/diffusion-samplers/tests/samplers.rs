//! Whole trajectories, compared with those of diffusers and k-diffusion for an exact model.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::exact_networks::{network_of, settings};
use common::{golden, largest_difference, read_json, read_npy};
use diffusion_samplers::rng::{Generator, Noise, Recorded};
use diffusion_samplers::sampler::{self, InitialState, Options, Sampler};
use diffusion_samplers::scheduler_settings::{KeyStatus, Value};
use serde_json::Value as Json;

/// The inputs and times of the evaluations, and the sample.
struct Run {
    inputs: Vec<Vec<f32>>,
    times: Vec<f64>,
    sample: Vec<f32>,
    missing: usize,
}

fn run(built: &std::sync::Arc<dyn Sampler>, case: &Json, initial: &[f32], draws: Vec<Vec<f32>>) -> Run {
    let scheduler = &case["scheduler"];
    let net = network_of(scheduler["_class_name"].as_str().unwrap(), scheduler);
    let (noise, missing) = Recorded::new(draws);
    let output_len = initial.len() * built.outputs_per_value();
    let trajectory =
        sampler::start(built.clone(), InitialState::from_noise(initial.to_vec()), Box::new(noise) as Noise);
    let (mut inputs, mut times) = (Vec::new(), Vec::new());
    let sample = trajectory.run_to_end(|input, t| {
        let mut output = vec![0.0; output_len];
        net(input, t, &mut output);
        inputs.push(input.to_vec());
        times.push(t);
        output
    });
    Run { inputs, times, sample, missing: missing.get() }
}

/// A set of cases, as `tests/golden/make_golden.py` writes it.
struct Cases {
    described: Vec<Json>,
    initial: Vec<f32>,
    rows: Vec<Vec<f32>>,
    noise: Vec<Vec<f32>>,
}

impl Cases {
    fn read(folder: &Path) -> Self {
        let array = |name: &str| -> Vec<Vec<f32>> {
            let array = read_npy(&folder.join(name));
            array.outer_iter().map(|row| row.iter().copied().collect()).collect()
        };
        Self {
            described: read_json(&folder.join("cases.json")).as_array().unwrap().clone(),
            initial: array("initial.npy").concat(),
            rows: array("rows.npy"),
            noise: array("noise.npy"),
        }
    }

    /// Returns the largest difference of a case's trajectory, or what is wrong with it.
    fn compare(&self, case: &Json) -> Result<f32, String> {
        let index = |key: &str| case[key].as_u64().unwrap() as usize;
        let scheduler = &case["scheduler"];
        let options = Options { eta: case["eta"].as_f64(), ..Options::new(index("steps")) };
        let choice =
            sampler::by_class(scheduler["_class_name"].as_str().unwrap()).map_err(|e| e.to_string())?;
        let built = choice.build(&mut settings(scheduler), &options).map_err(|e| e.to_string())?;
        let draws = self.noise[index("noise")..][..index("draws")].to_vec();
        // dpm_2 of k-diffusion draws noise that it does not use.
        let unused = scheduler["_class_name"] == "sample_dpm_2";
        if !unused && built.draws() != draws.len() {
            return Err(format!("{} draws instead of {}", built.draws(), draws.len()));
        }
        if built.evaluations() != index("evaluations") {
            return Err(format!("{} evaluations instead of {}", built.evaluations(), index("evaluations")));
        }
        let found = run(&built, case, &self.initial, draws);
        assert_eq!((found.missing, found.inputs.len()), (0, built.evaluations()));
        let kept: Vec<usize> = match case["kept"].as_array() {
            Some(kept) => kept.iter().map(|i| i.as_u64().unwrap() as usize).collect(),
            None => (0..found.inputs.len()).collect(),
        };
        let rows = &self.rows[index("row")..];
        let mut worst = largest_difference(&found.sample, &rows[kept.len()]);
        for ((&i, row), t) in kept.iter().zip(rows).zip(case["times"].as_array().unwrap()) {
            let t = t.as_f64().unwrap();
            if (found.times[i] - t).abs() > 1e-3 * (1.0 + t.abs() / 1000.0) {
                return Err(format!("evaluation {i} at time step {} instead of {t}", found.times[i]));
            }
            // Relative to the input's magnitude, which can be several hundred.
            let magnitude = row.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
            worst = worst.max(largest_difference(&found.inputs[i], row) / magnitude);
        }
        let loose = index("steps") >= 1000 || scheduler["beta_schedule"] == "squaredcos_cap_v2";
        let bound = if loose { 1e-4 } else { 1e-5 };
        let bound = case["bound"].as_f64().map_or(bound, |own| own as f32);
        if worst <= bound { Ok(worst) } else { Err(format!("differs by {worst:.1e}")) }
    }
}

#[test]
fn whole_trajectories_agree_with_the_references() {
    let more = std::env::var_os("DENOISED_SAMPLER_CASES").map(PathBuf::from);
    let mut faults = Vec::new();
    for folder in [golden("samplers")].into_iter().chain(more) {
        let cases = Cases::read(&folder);
        assert!(cases.described.len() >= 200, "{} cases in {}", cases.described.len(), folder.display());
        let mut worst = BTreeMap::<String, f32>::new();
        for case in &cases.described {
            let class = case["scheduler"]["_class_name"].as_str().unwrap().to_owned();
            match cases.compare(case) {
                Ok(difference) => {
                    let most = worst.entry(class).or_default();
                    *most = most.max(difference);
                }
                Err(fault) => faults.push(format!(
                    "{fault}: {} steps, eta {}, {}",
                    case["steps"], case["eta"], case["scheduler"]
                )),
            }
        }
        let worst: Vec<_> = worst.iter().map(|(class, most)| format!("{class} {most:.1e}")).collect();
        let (count, folder) = (cases.described.len(), folder.display());
        println!("{folder}: {count} cases, largest differences: {}", worst.join(", "));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A model that also predicts variances returns twice as many values. Most samplers use the first half.
#[test]
fn predicted_variances_do_not_change_samplers_that_ignore_them() {
    let run = |sampler: &std::sync::Arc<dyn Sampler>, outputs: usize| {
        let mut z = vec![0.0; 21];
        let mut noise = Generator::Torch.seeded(3);
        noise.fill(&mut z);
        let trajectory = sampler::start(sampler.clone(), InitialState::from_noise(z), noise);
        let sample = trajectory.run_to_end(|input, _| {
            let mut output: Vec<f32> = input.iter().map(|x| x * 0.9).collect();
            output.resize(21 * outputs, 7.0);
            output
        });
        sample.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let mut samplers = 0;
    for name in sampler::names() {
        let choice = sampler::by_name(name).unwrap();
        let built = choice.build(&mut settings(&serde_json::json!({})), &Options::new(6)).unwrap();
        assert_eq!(run(&built, 1), run(&built, 2), "{name}");
        samplers += 1;
    }
    assert!(samplers > 35, "{samplers} samplers");
}

#[test]
fn every_class_has_a_case() {
    let cases = Cases::read(&golden("samplers"));
    // Without a reference implementation; convergence.rs tests them.
    let own = ["AnnealedLangevinDynamics", "StochasticGradientLangevinDynamics", "ReverseDiffusionProcess"];
    for family in sampler::FAMILIES.iter().filter(|family| !own.contains(&family.class)) {
        let known = cases.described.iter().any(|case| case["scheduler"]["_class_name"] == family.class);
        assert!(known, "{} has no case", family.class);
    }
}

#[test]
fn noise_has_the_bits_of_pytorch() {
    let cases = read_json(&golden("noise/cases.json"));
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let seed = case["seed"].as_u64().unwrap();
        let expected: Vec<f32> = read_npy(&golden(&format!("noise/{seed}.npy"))).iter().copied().collect();
        let mut generator = Generator::Torch.seeded(seed);
        let mut found = Vec::new();
        for size in case["sizes"].as_array().unwrap() {
            let mut z = vec![0.0; size.as_u64().unwrap() as usize];
            generator.fill(&mut z);
            found.extend(z);
        }
        let bits = |z: &[f32]| z.iter().map(|z| z.to_bits()).collect::<Vec<_>>();
        let wrong = bits(&found).iter().zip(bits(&expected)).filter(|(a, b)| *a != b).count();
        assert_eq!(
            wrong,
            0,
            "seed {seed}: {wrong} of {} numbers differ; {}",
            found.len(),
            largest_difference(&found, &expected)
        );
    }
}

/// DPMSolverSDEScheduler seeds a generator of its own with `noise_sampler_seed`. Here noise comes from elsewhere.
#[test]
fn a_seed_of_the_scheduler_s_own_noise_is_reported_as_without_effect() {
    let config = serde_json::json!({"noise_sampler_seed": 5});
    let build = |config: &Json| {
        let mut settings = settings(config);
        let spec = sampler::by_class("DPMSolverSDEScheduler").unwrap();
        (spec.build(&mut settings, &Options::new(4)).unwrap(), settings)
    };
    let (seeded, settings) = build(&config);
    let line = settings.report().into_iter().find(|line| line.key == "noise_sampler_seed").unwrap();
    assert_eq!((line.value, line.status), (Value::Number(5.0), KeyStatus::Ignored));
    let (plain, _) = build(&serde_json::json!({}));
    assert_eq!((seeded.draws(), seeded.evaluations()), (plain.draws(), plain.evaluations()));
}

/// Keys whose switch is off were reported as used, and refused for a value that nothing reads.
#[test]
fn keys_that_another_key_switches_off_were_used() {
    let status = |config: Json, key: &str| {
        let spec = sampler::by_class(config["_class_name"].as_str().unwrap()).unwrap();
        let mut settings = settings(&config);
        spec.build(&mut settings, &Options::new(4)).map(drop).unwrap();
        settings.report().into_iter().find(|line| line.key == key).unwrap().status
    };
    let betas: Vec<f64> = (1..=1000).map(|t| f64::from(t) * 1e-5).collect();
    let (ddim, dpm, euler) = ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler");
    let (edm, flow, unipc) =
        ("EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler");
    let cases = [
        (
            ddim,
            "trained_betas",
            serde_json::json!(betas),
            "beta_start",
            Json::Null,
            "trained_betas has the values",
        ),
        (
            ddim,
            "trained_betas",
            serde_json::json!(betas),
            "beta_end",
            0.3.into(),
            "trained_betas has the values",
        ),
        (
            ddim,
            "trained_betas",
            serde_json::json!(betas),
            "beta_schedule",
            "linear".into(),
            "trained_betas has the values",
        ),
        (
            ddim,
            "beta_schedule",
            "squaredcos_cap_v2".into(),
            "beta_end",
            0.3.into(),
            "the curve of this beta_schedule has none",
        ),
        (ddim, "clip_sample", false.into(), "clip_sample_range", 0.into(), "clip_sample is false"),
        (ddim, "thresholding", true.into(), "clip_sample_range", 2.into(), "thresholding is true"),
        (ddim, "thresholding", false.into(), "sample_max_value", (-1).into(), "thresholding is false"),
        (dpm, "thresholding", false.into(), "dynamic_thresholding_ratio", 9.into(), "thresholding is false"),
        (
            ddim,
            "timestep_spacing",
            "trailing".into(),
            "steps_offset",
            1.into(),
            "only timestep_spacing leading has an offset",
        ),
        (dpm, "use_flow_sigmas", false.into(), "flow_shift", 3.into(), "use_flow_sigmas is false"),
        (
            dpm,
            "use_karras_sigmas",
            true.into(),
            "timestep_spacing",
            "trailing".into(),
            "the sigma schedule determines the time steps",
        ),
        (
            euler,
            "use_karras_sigmas",
            false.into(),
            "sigma_max",
            3.into(),
            "no sigma schedule is set, such as use_karras_sigmas",
        ),
        (
            euler,
            "prediction_type",
            "epsilon".into(),
            "timestep_type",
            "continuous".into(),
            "prediction_type is not v_prediction",
        ),
        (
            edm,
            "sigma_schedule",
            "exponential".into(),
            "rho",
            3.into(),
            "only sigma_schedule karras has an exponent",
        ),
        (edm, "preconditioning", "none".into(), "sigma_data", 3.into(), "preconditioning is none"),
        (flow, "use_dynamic_shifting", false.into(), "base_shift", 3.into(), "use_dynamic_shifting is false"),
        (unipc, "use_flow_sigmas", false.into(), "flow_shift", 3.into(), "use_flow_sigmas is false"),
    ];
    for (class, switch, setting, key, value, reason) in cases {
        let config = |setting: &Json| serde_json::json!({"_class_name": class, switch: setting, key: value});
        assert_eq!(status(config(&setting), key), KeyStatus::WithoutEffect(reason), "{class} {key}");
        assert_eq!(status(config(&setting), switch), KeyStatus::Used, "{class} {switch}");
    }
    let on = serde_json::json!({"_class_name": ddim, "clip_sample": true, "clip_sample_range": 2});
    assert_eq!(status(on, "clip_sample_range"), KeyStatus::Used);
    // On a cosine curve, Karras' time steps stay fractional.
    let rounding = serde_json::json!({"_class_name": dpm, "trained_betas": betas, "use_karras_sigmas": true,
        "beta_schedule": "squaredcos_cap_v2"});
    assert_eq!(status(rounding, "beta_schedule"), KeyStatus::Used);
}

/// Configurations for which diffusers is not finite or does not do what the key says.
#[test]
fn configurations_that_diffusers_computes_wrongly_are_errors() {
    let cases = [
        (
            serde_json::json!({"_class_name": "DDPMScheduler", "variance_type": "fixed_large_log"}),
            "variance_type = fixed_large_log is refused: diffusers takes the root of a negative logarithm",
        ),
        (
            serde_json::json!({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true,
                "timestep_spacing": "trailing"}),
            "rescale_betas_zero_snr = true is refused: at pure noise an epsilon prediction does not determine x_0",
        ),
        (
            serde_json::json!({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"}),
            "solver_type = bh1 is refused: its last step, to a noise level of 0, is not finite",
        ),
        (
            serde_json::json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}),
            "final_sigmas_type = zero is refused: dpmsolver and sde-dpmsolver can't step to a noise level of 0",
        ),
        (
            serde_json::json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver",
                "solver_order": 3, "final_sigmas_type": "sigma_min"}),
            "solver_order = 3 is refused: the reference has no stochastic step of order 3 here",
        ),
        (
            serde_json::json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true,
                "use_beta_sigmas": true}),
            "use_beta_sigmas = true is refused: use_karras_sigmas is set as well",
        ),
        (
            serde_json::json!({"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "sample"}),
            "prediction_type = sample is refused: this sampler supports epsilon, v_prediction",
        ),
        (
            serde_json::json!({"_class_name": "HeunDiscreteScheduler", "rescale_betas_zero_snr": true}),
            "rescale_betas_zero_snr = true is refused: this sampler has no step from pure noise",
        ),
        (
            serde_json::json!({"_class_name": "UniPCMultistepScheduler", "use_karras_sigmas": true,
                "final_sigmas_type": "sigma_min", "solver_order": 3, "lower_order_final": false}),
            "some coefficients are not finite",
        ),
    ];
    for (config, reason) in cases {
        let choice = sampler::by_class(config["_class_name"].as_str().unwrap()).unwrap();
        let error =
            choice.build(&mut settings(&config), &Options::new(20)).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(reason)), "{config}: {error:?}");
    }
}
