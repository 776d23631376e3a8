//! Names that other programs have for a field of ours.

/// The names in diffusers, Stable Diffusion web UI, ComfyUI, Invoke and hosted services, in lower case and without `_` and
/// `-`, by the field that they mean.
const SYNONYMS: [(&str, &str); 26] = [
    (
        "steps",
        "numinferencesteps inferencesteps numsteps nsteps samplingsteps samplesteps ddimsteps iterations numiterations",
    ),
    (
        "guidance",
        "guidancescale cfg cfgscale cfgweight guidanceweight unconditionalguidancescale truecfgscale scale",
    ),
    ("guidance_rescale", "cfgrescale rescalecfg guidancerescalefactor"),
    (
        "negative_prompt",
        "negative negativetext negprompt negativeprompts uncond uncondprompt unconditionalprompt",
    ),
    ("prompt", "text inputs caption positive positiveprompt textprompt textprompts prompts"),
    ("prompt_2", "secondprompt"),
    ("negative_prompt_2", "secondnegativeprompt"),
    (
        "count",
        "n niter numimagesperprompt numimages numoutputs numsamples nsamples batchsize batchcount imagecount samples \
         images number",
    ),
    ("sampler", "samplername samplerindex samplingmethod samplemethod scheduler schedulername schedulertype"),
    ("seed", "generator randomseed noiseseed manualseed rngseed"),
    ("image", "initimage initimages initimg inputimage sourceimage startimage img imageurl imagefile"),
    ("mask", "maskimage maskimg maskurl inpaintmask inpaintingmask"),
    ("strength", "denoise denoising denoisingstrength denoisestrength promptstrength img2imgstrength"),
    ("eta", "ddimeta etaddim etaancestral"),
    ("class", "classlabel classlabels classid label labels"),
    ("crop", "cropscoordstopleft cropscoords cropcoords"),
    ("format", "outputformat outputtype imageformat imagetype fileformat responseformat"),
    ("quality", "jpegquality outputquality imagequality"),
    ("deadline_ms", "deadline timeout timeoutms maxms"),
    ("width", "w imagewidth"),
    ("height", "h imageheight"),
    ("id", "jobid requestid uuid name"),
    ("model", "modelid modelname checkpoint ckpt sdmodelcheckpoint"),
    ("noise", "rng noisegenerator randnsource"),
    ("preview_every", "previewinterval previewsteps"),
    ("priority", "prio"),
];

/// Returns the field that another program's name means. Its value may have to be written in another way.
pub(crate) fn field_meant_by(name: &str) -> Option<&'static str> {
    let plain: String =
        name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect();
    SYNONYMS
        .iter()
        .find(|(_, names)| names.split_whitespace().any(|name| name == plain))
        .map(|(field, _)| *field)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_name_means_one_field() {
        let mut seen = HashSet::new();
        for (field, names) in &SYNONYMS {
            for name in names.split_whitespace() {
                assert!(seen.insert(name), "{name} is listed twice");
                assert_eq!(field_meant_by(name), Some(*field), "{name}");
            }
        }
        assert_eq!(field_meant_by("numInferenceSteps"), Some("steps"));
        assert_eq!(field_meant_by("guidance-scale"), Some("guidance"));
        assert_eq!(field_meant_by("stepz"), None);
    }
}
