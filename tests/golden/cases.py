"""Configurations for which samplers are compared with the reference implementations."""

import random

LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
KARRAS, EXPONENTIAL, BETA = {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
V, SAMPLE = {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}
LEADING, TRAILING = {"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"}
ZERO_SNR = {"rescale_betas_zero_snr": True, **V, **TRAILING}
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}
LEAST = {"final_sigmas_type": "sigma_min"}


# SA-Solver's weights are differences of large terms and lose digits in float32. In the two cases with this
# bound, the reference differs by 7e-4 and 8e-4 from itself with float64 noise levels and states.
OWN_ROUNDING = 1e-3
# From pure noise with eta 1, DDIM's direction has the length 0. The reference has the root of its rounding error
# there: 0, 2.4e-4 or NaN, which depends on the processor's square root.
ROOT_OF_ROUNDING = 5e-4


def _of(class_name, *variants):
    """Cases of a class: (settings, steps[, eta[, bound]])."""
    return [(class_name, *variant, *(None,) * (4 - len(variant))) for variant in variants]


CASES = [
    *_of("DDPMScheduler", ({}, 10), ({}, 1000), ({"variance_type": "fixed_large", "clip_sample": False}, 20),
         ({"variance_type": "learned_range"}, 20), ({**V, **TRAILING}, 12), ({**SAMPLE, "timestep_spacing": "linspace"}, 12),
         ({**THRESHOLD}, 10), ({**ZERO_SNR}, 10), ({"variance_type": "fixed_small_log", **COSINE}, 15)),
    *_of("DDIMScheduler", ({}, 10, 0.0), ({"clip_sample": False}, 50, 0.7), ({**COSINE, "clip_sample_range": 2.0}, 25, 0.0),
         ({**LATENT, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}, 20, 0.0), ({**ZERO_SNR}, 10, 0.0),
         ({**ZERO_SNR, "clip_sample": False}, 10, 0.5), ({**THRESHOLD}, 10, 0.0), ({**SAMPLE, **TRAILING}, 7, 1.0)),
    *_of("DDIMInverseScheduler", ({"clip_sample": False}, 10), ({**LATENT, "set_alpha_to_one": False, **V}, 20), ({**TRAILING}, 8),
         ({**SAMPLE, "set_alpha_to_one": False, "steps_offset": 1}, 12)),
    *_of("PNDMScheduler", ({}, 10), ({"skip_prk_steps": True}, 10), ({**LATENT, "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": True}, 25),
         ({**V}, 15), ({**V, "skip_prk_steps": True, **TRAILING}, 7), ({"timestep_spacing": "linspace", "skip_prk_steps": True}, 9)),
    *_of("IPNDMScheduler", ({}, 10), ({}, 50), ({}, 3)),
    *_of("EulerDiscreteScheduler", ({}, 10), ({**LATENT, **LEADING}, 20), ({**KARRAS}, 12), ({**EXPONENTIAL, **V}, 12), ({**BETA}, 9),
         ({**TRAILING, **SAMPLE}, 8), ({"interpolation_type": "log_linear"}, 10), ({**LEAST, **V}, 10), ({**ZERO_SNR}, 10),
         ({**KARRAS, "sigma_min": 0.05, "sigma_max": 20.0, **V, "timestep_type": "continuous"}, 10)),
    *_of("EulerAncestralDiscreteScheduler", ({}, 10), ({**LATENT, **LEADING, **V}, 20), ({**TRAILING}, 30), ({**ZERO_SNR}, 10)),
    *_of("HeunDiscreteScheduler", ({}, 5), ({**LINEAR, **V}, 20), ({**LINEAR, **LEADING, "clip_sample": True}, 10), ({**TRAILING, **SAMPLE}, 10),
         ({**KARRAS}, 10), ({**EXPONENTIAL}, 10), ({**BETA, "beta_schedule": "exp"}, 10)),
    *_of("KDPM2DiscreteScheduler", ({}, 10), ({**LINEAR, **V, **KARRAS}, 10), ({**LEADING}, 10), ({**EXPONENTIAL}, 8), ({**BETA, **TRAILING}, 8)),
    *_of("KDPM2AncestralDiscreteScheduler", ({}, 10), ({**LINEAR, **V, **KARRAS}, 10), ({**LEADING}, 10), ({**EXPONENTIAL}, 8), ({**BETA}, 8)),
    *_of("LMSDiscreteScheduler", ({}, 10), ({**LATENT, **V, **KARRAS}, 12), ({**LEADING, **SAMPLE}, 10), ({**EXPONENTIAL}, 8), ({**BETA, **TRAILING}, 20)),
    *_of("DPMSolverSDEScheduler", ({}, 8), ({**LINEAR, **V, **KARRAS}, 8), ({**LEADING}, 8), ({**EXPONENTIAL}, 6), ({**BETA, **TRAILING}, 6)),
    *_of("DPMSolverMultistepScheduler",
         *[({"algorithm_type": a, "solver_order": o, "solver_type": s, **(LEAST if not a.endswith("++") else {})}, 12)
           for a in ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++") for o in (1, 2, 3) for s in ("midpoint", "heun")
           if (a, o) != ("sde-dpmsolver", 3) and (o == 2 or s == "midpoint")],
         ({**KARRAS, **V}, 20), ({**COSINE, **KARRAS, "solver_order": 3}, 20), ({"use_lu_lambdas": True}, 10), ({**EXPONENTIAL}, 10), ({**BETA}, 10),
         ({**FLOW}, 16), ({**LEADING, **SAMPLE}, 18), ({**TRAILING, **ZERO_SNR}, 10), ({"lambda_min_clipped": -5.1, **COSINE}, 15),
         ({**THRESHOLD}, 10), ({**THRESHOLD, "algorithm_type": "dpmsolver", **LEAST}, 10), ({"euler_at_final": True, "lower_order_final": False, **LEAST}, 16),
         ({"variance_type": "learned_range"}, 10), ({"solver_order": 3}, 50), ({}, 1), ({}, 2)),
    *_of("DPMSolverMultistepInverseScheduler", ({}, 10), ({"algorithm_type": "dpmsolver", "solver_order": 3}, 20),
         ({**KARRAS, **V}, 10), ({**EXPONENTIAL}, 10), ({**BETA}, 10), ({**LEADING}, 10), ({**TRAILING}, 10)),
    *_of("DPMSolverSinglestepScheduler",
         *[({"algorithm_type": a, "solver_order": o, "solver_type": s, **(LEAST if not a.endswith("++") else {})}, n)
           for a in ("dpmsolver", "dpmsolver++", "sde-dpmsolver++") for o, n in ((2, 10), (3, 12)) for s in ("midpoint", "heun")],
         ({"solver_order": 3, "lower_order_final": True, **LEAST}, 11), ({"solver_order": 3}, 13), ({"solver_order": 1}, 5), ({**KARRAS, **V}, 10),
         ({**EXPONENTIAL}, 10), ({**BETA}, 10), ({**FLOW}, 10), ({**THRESHOLD}, 10), ({"lambda_min_clipped": -5.1, **COSINE}, 12)),
    *_of("DEISMultistepScheduler", *[({"solver_order": o}, 12) for o in (1, 2, 3)], ({"solver_order": 3, **V}, 20), ({**KARRAS}, 10), ({**EXPONENTIAL}, 10),
         ({**BETA}, 10), ({**FLOW}, 10), ({**LEADING, **SAMPLE}, 10), ({**TRAILING, **THRESHOLD}, 10)),
    *_of("UniPCMultistepScheduler",
         *[({"solver_type": b, "solver_order": o, "predict_x0": p, **LEAST}, 12) for b in ("bh1", "bh2") for o in (1, 2, 3) for p in (True, False)],
         ({}, 10), ({"solver_order": 3}, 16), ({"disable_corrector": [0, 1, 4]}, 10), ({**KARRAS, **V}, 10), ({**EXPONENTIAL, **LEAST}, 10), ({**BETA}, 10),
         ({**FLOW}, 10), ({**FLOW, "shift_terminal": 0.1, **LEAST}, 10), ({**FLOW, **KARRAS, "sigma_min": 0.01, "sigma_max": 50.0}, 10),
         ({**KARRAS, "sigma_min": 0.05, "sigma_max": 20.0}, 10), ({**ZERO_SNR}, 10), ({**LEADING, **SAMPLE}, 10), ({**THRESHOLD}, 10),
         ({"lower_order_final": False, "solver_order": 3, **LEAST}, 10)),
    *_of("SASolverScheduler", ({}, 10), ({"algorithm_type": "noise_prediction"}, 10, None, OWN_ROUNDING), ({"predictor_order": 3, "corrector_order": 4}, 12),
         ({"predictor_order": 1, "corrector_order": 1, **V}, 10), ({**KARRAS}, 20), ({**LEADING, **SAMPLE}, 10), ({**TRAILING, **THRESHOLD}, 10), ({**FLOW}, 10),
         ({"lower_order_final": False}, 10), ({**EXPONENTIAL}, 10), ({**BETA}, 10, None, OWN_ROUNDING)),
    *_of("LCMScheduler", ({}, 4), ({**V, "original_inference_steps": 100}, 7), ({**SAMPLE, "clip_sample": True}, 1), ({**THRESHOLD}, 5)),
    *_of("TCDScheduler", ({}, 4), ({}, 4, 0.0), ({**V}, 8, 1.0), ({**SAMPLE, "original_inference_steps": 100}, 7, 0.5)),
    *_of("CMStochasticIterativeScheduler", ({}, 1), ({}, 5), ({"clip_denoised": False, "s_noise": 0.9}, 40)),
    *_of("EDMEulerScheduler", ({}, 10), ({**V, "sigma_schedule": "exponential", "sigma_max": 20.0}, 10), ({**LEAST, "rho": 5.0, "sigma_data": 1.0}, 10)),
    *_of("EDMDPMSolverMultistepScheduler", ({}, 10), ({"solver_order": 3, "solver_type": "heun"}, 20), ({"algorithm_type": "sde-dpmsolver++"}, 10),
         ({**V, "sigma_schedule": "exponential", **LEAST}, 10), ({**THRESHOLD}, 10)),
    *_of("FlowMatchEulerDiscreteScheduler", ({}, 10), ({"shift": 3.0}, 10), ({"shift_terminal": 0.1}, 10), ({"stochastic_sampling": True}, 10), ({**KARRAS}, 10),
         ({**EXPONENTIAL}, 10), ({**BETA}, 10), ({"invert_sigmas": True}, 10)),
    *_of("FlowMatchHeunDiscreteScheduler", ({}, 10), ({"shift": 3.0}, 10)),
    *_of("ScoreSdeVeScheduler", ({}, 20), ({"sigma_max": 50.0, "correct_steps": 2, "snr": 0.1}, 12)),
    *_of("RePaintScheduler", ({}, 20), ({"eta": 0.5, "clip_sample": False}, 25), ({"beta_schedule": "sigmoid"}, 30, 1.0)),
    *_of("sample_dpm_2", ({**LINEAR}, 8), ({**LATENT, **KARRAS}, 8), ({**LINEAR, **V, "use_polyexponential_sigmas": True, "rho": 1.5}, 8)),
    *_of("sample_dpm_2_ancestral", ({**LINEAR}, 8), ({**LATENT, **KARRAS}, 8, 0.5)),
    *_of("sample_dpmpp_2s_ancestral", ({**LINEAR}, 8), ({**LATENT, **KARRAS}, 8, 0.5), ({**LINEAR, **EXPONENTIAL}, 8, 0.0)),
    *_of("sample_dpmpp_sde", ({**LINEAR}, 8), ({**LATENT, **KARRAS}, 8, 0.5)),
    *_of("sample_dpmpp_2m_sde", ({**LINEAR}, 8), ({**LATENT, **KARRAS, "solver_type": "heun"}, 8, 0.5), ({**LINEAR, **EXPONENTIAL}, 8, 0.0)),
    *_of("sample_dpmpp_3m_sde", ({**LINEAR}, 12), ({**LATENT, **KARRAS}, 12, 0.5), ({**LINEAR, **EXPONENTIAL, **V}, 12, 0.0)),
    # From pure noise with all of the noise of DDPM.
    *_of("DDIMScheduler", ({**ZERO_SNR}, 20, 1.0), ({**ZERO_SNR, "clip_sample": False}, 25, 1.0), ({**ZERO_SNR, **LATENT}, 10, 1.0, ROOT_OF_ROUNDING),
         ({**ZERO_SNR, **LATENT, **SAMPLE}, 4, 1.0, ROOT_OF_ROUNDING)),
    *_of("DPMSolverSDEScheduler", ({"noise_sampler_seed": 5}, 8)),
    *_of("FlowMatchLCMScheduler", ({}, 4), ({"shift": 3.0}, 8), ({"shift_terminal": 0.1}, 6), ({**KARRAS}, 5), ({**EXPONENTIAL}, 5), ({**BETA}, 5),
         ({"invert_sigmas": True}, 4), ({"shift": 6.0}, 1)),
    *_of("SCMScheduler", ({}, 2), ({}, 1), ({}, 4), ({"intermediate_timesteps": 1.1}, 2), ({"intermediate_timesteps": None}, 2),
         ({"max_timesteps": 1.56454}, 2), ({"max_timesteps": 1.5, "sigma_data": 1.0}, 3), ({"num_train_timesteps": 500}, 20)),
]


def random_cases(count, seed):
    """Random configurations of the same classes, combined from the values in CASES."""
    rng = random.Random(seed)
    cases = []
    for _ in range(count):
        class_name, settings, steps, eta, bound = rng.choice(CASES)
        same = [c for c in CASES if c[0] == class_name]
        mixed = dict(settings)
        for _ in range(rng.randint(0, 2)):
            mixed.update(rng.choice(same)[1])
        known = {k for c in same for k in c[1]}
        for further in (LATENT, LINEAR, COSINE):
            if set(further) & known and rng.random() < 0.3:
                mixed.update(further)
        if "timestep_spacing" in known and rng.random() < 0.4:
            mixed["timestep_spacing"] = rng.choice(["linspace", "leading", "trailing"])
        steps = rng.choice([rng.randint(1, 12), rng.randint(4, 30), rng.randint(10, 100)])
        cases.append((class_name, mixed, steps, eta, bound))
    return cases
