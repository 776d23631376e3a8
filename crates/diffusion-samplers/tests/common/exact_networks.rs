//! The exact models of the golden trajectories, by the class of the scheduler.

use std::collections::BTreeMap;

use diffusion_samplers::noise_schedule::{NoiseSchedule, ScheduleDefaults, ZeroSnr};
use diffusion_samplers::prediction_type::PredictionType;
use diffusion_samplers::scheduler_settings::{Settings, Value};
use serde_json::Value as Json;

use super::gaussian::{Gaussian, posterior, predict};

/// The settings of a scheduler's configuration.
pub fn settings(scheduler: &Json) -> Settings {
    let convert = |value: &Json| match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(number) => Value::Number(number.as_f64().unwrap()),
        Json::String(text) if text == "-Infinity" => Value::Number(f64::NEG_INFINITY),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(list) => Value::Numbers(list.iter().map(|n| n.as_f64().unwrap()).collect()),
        Json::Object(_) => panic!("{value}"),
    };
    let values = scheduler.as_object().unwrap().iter().filter(|(key, _)| !key.starts_with('_'));
    Settings::new(values.map(|(key, value)| (key.clone(), convert(value))).collect::<BTreeMap<_, _>>())
}

/// A model: it writes the output for an input and a time.
pub type Network = Box<dyn Fn(&[f32], f64, &mut [f32])>;

/// The exact model that `tests/golden/exact.py` has for a scheduler class.
pub fn network_of(class: &str, config: &Json) -> Network {
    let number = |key: &str| config[key].as_f64().unwrap();
    let straight = |steps: f64| -> Network {
        Box::new(move |x, t, output| {
            predict(PredictionType::Flow, x, (1.0 - t / steps, t / steps), output);
        })
    };
    if class == "SCMScheduler" {
        return straight(1000.0);
    }
    let kind = config["prediction_type"].as_str().unwrap_or("epsilon");
    let kind = PredictionType::from_name(kind).unwrap();
    let velocity = kind == PredictionType::VPrediction;
    if class.starts_with("EDM") {
        let data = number("sigma_data");
        return preconditioned(
            data,
            |t| (4.0 * t).exp(),
            move |sigma| {
                let out = sigma * data / sigma.hypot(data);
                (data * data / (sigma * sigma + data * data), if velocity { -out } else { out })
            },
        );
    }
    if class.starts_with("CM") {
        let (data, least) = (number("sigma_data"), number("sigma_min"));
        return preconditioned(
            data,
            |t| (t / 250.0).exp(),
            move |sigma| {
                let above = sigma - least;
                (data * data / (above * above + data * data), above.max(1e-9) * data / sigma.hypot(data))
            },
        );
    }
    let path = |kind, level: fn(f64) -> (f64, f64)| -> Network {
        Box::new(move |x, t, output| predict(kind, x, level(t), output))
    };
    match class {
        "ScoreSdeVeScheduler" => return path(PredictionType::Score, |sigma| (1.0, sigma)),
        "IPNDMScheduler" => {
            let level =
                |t: f64| ((t * std::f64::consts::FRAC_PI_2).cos(), (t * std::f64::consts::FRAC_PI_2).sin());
            return path(PredictionType::VPrediction, level);
        }
        _ => {}
    }
    if class.starts_with("FlowMatch") || kind == PredictionType::Flow {
        return straight(number("num_train_timesteps"));
    }
    if config["timestep_type"] == "continuous" && velocity {
        let level = |t: f64| {
            let sigma = (4.0 * t).exp();
            (1.0 / sigma.hypot(1.0), sigma / sigma.hypot(1.0))
        };
        return path(kind, level);
    }
    let learned = matches!(config["variance_type"].as_str(), Some("learned" | "learned_range"));
    let zero_snr = if class.starts_with("DD") { ZeroSnr::Exact } else { ZeroSnr::Approximate };
    let defaults = ScheduleDefaults::DDPM.with_zero_snr(zero_snr);
    let net =
        Gaussian::new(&NoiseSchedule::from_settings(&mut settings(config), defaults).unwrap(), kind, learned);
    Box::new(move |x, t, output| net.evaluate(x, t, output))
}

fn preconditioned(
    data: f64,
    sigma_of: fn(f64) -> f64,
    skip_out: impl Fn(f64) -> (f64, f64) + 'static,
) -> Network {
    Box::new(move |x, t, output| {
        let sigma = sigma_of(t);
        let (skip, out) = skip_out(sigma);
        for (x, output) in x.iter().zip(output) {
            let x = f64::from(*x) * sigma.hypot(data);
            *output = ((posterior(x, 1.0, sigma).0 - skip * x) / out) as f32;
        }
    })
}
