//! The power that a board's sensors measure.

use super::{Platform, file_name};

/// The power of one supply rail.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PowerRail {
    /// Its name, such as `VDD_IN`.
    pub(crate) label: String,
    /// In watts.
    pub(crate) watts: f64,
}

const HWMON: &str = "/sys/class/hwmon";
/// The power monitor of Jetson boards: three channels, each with a voltage and a current.
const INA3221: &str = "ina3221";
/// The rails that supply a whole module. Boards without one of them have a rail for each part.
const INPUT_RAILS: [&str; 3] = ["VDD_IN", "POM_5V_IN", "POM_5V0_IN"];

impl Platform {
    /// Reads the rails of all INA3221 monitors. Skips channels that are not connected.
    pub(crate) fn power_rails(&self) -> Vec<PowerRail> {
        let monitors = self.entries(HWMON).into_iter().map(|entry| format!("{HWMON}/{}", file_name(&entry)));
        let monitors =
            monitors.filter(|monitor| self.text(&format!("{monitor}/name")).as_deref() == Some(INA3221));
        monitors
            .flat_map(|monitor| (1..=3).filter_map(move |channel| self.power_rail(&monitor, channel)))
            .collect()
    }

    fn power_rail(&self, monitor: &str, channel: usize) -> Option<PowerRail> {
        let label = self.text(&format!("{monitor}/in{channel}_label")).filter(|label| label != "NC")?;
        let number = |file: String| self.text(&format!("{monitor}/{file}"))?.parse::<f64>().ok();
        let (millivolts, milliamperes) =
            (number(format!("in{channel}_input"))?, number(format!("curr{channel}_input"))?);
        Some(PowerRail { label, watts: millivolts * milliamperes / 1e6 })
    }
}

/// Returns the power of the board in watts, and what was measured: its input rail, or else the sum of all rails.
pub(crate) fn input_power(rails: &[PowerRail]) -> Option<(f64, String)> {
    let is_input = |rail: &&PowerRail| INPUT_RAILS.contains(&rail.label.as_str());
    match (rails.iter().find(is_input), rails) {
        (Some(input), _) => Some((input.watts, format!("INA3221, rail {}", input.label))),
        (None, []) => None,
        (None, rails) => {
            Some((rails.iter().map(|rail| rail.watts).sum(), "INA3221, sum of all rails".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The label of a rail, its voltage in mV and its current in mA.
    type Channel<'a> = (&'a str, u32, u32);

    fn board(monitors: &[(&str, &[Channel<'_>])]) -> (tempfile::TempDir, Platform) {
        let root = tempfile::tempdir().unwrap();
        for (index, (name, channels)) in monitors.iter().enumerate() {
            let directory = root.path().join(format!("sys/class/hwmon/hwmon{index}"));
            std::fs::create_dir_all(&directory).unwrap();
            let write = |file: String, text: String| std::fs::write(directory.join(file), text).unwrap();
            write("name".to_owned(), format!("{name}\n"));
            for (channel, (label, millivolts, milliamperes)) in (1..).zip(*channels) {
                write(format!("in{channel}_label"), format!("{label}\n"));
                write(format!("in{channel}_input"), format!("{millivolts}\n"));
                write(format!("curr{channel}_input"), format!("{milliamperes}\n"));
            }
        }
        let platform = Platform::new(root.path());
        (root, platform)
    }

    #[test]
    fn the_input_rail_of_an_orin_nano_is_the_power_of_the_board() {
        let channels: [Channel<'_>; 3] =
            [("VDD_IN", 5000, 2400), ("VDD_CPU_GPU_CV", 5000, 800), ("VDD_SOC", 5000, 400)];
        let (_root, platform) = board(&[("tmp451", &[("VDD_IN", 1, 1)]), ("ina3221", &channels)]);
        let rails = platform.power_rails();
        assert_eq!(rails.len(), 3);
        assert_eq!(rails[1], PowerRail { label: "VDD_CPU_GPU_CV".to_owned(), watts: 4.0 });
        assert_eq!(input_power(&rails), Some((12.0, "INA3221, rail VDD_IN".to_owned())));
    }

    #[test]
    fn a_board_without_an_input_rail_has_the_sum_of_its_connected_rails() {
        let first: [Channel<'_>; 3] =
            [("VDD_GPU_SOC", 20000, 500), ("VDD_CPU_CV", 20000, 100), ("VIN_SYS_5V0", 5000, 600)];
        let (_root, platform) = board(&[("ina3221", &first), ("ina3221", &[("NC", 5000, 9)])]);
        let expected = Some((15.0, "INA3221, sum of all rails".to_owned()));
        assert_eq!(input_power(&platform.power_rails()), expected);
        assert_eq!(input_power(&Platform::new("/nonexistent").power_rails()), None);
    }
}
