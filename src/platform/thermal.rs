//! Temperatures and throttling from sysfs.

use super::{Platform, file_name};

/// How warm a board is.
#[derive(Debug, Clone, PartialEq)]
pub struct ThermalStatus {
    /// The thermal zones by name, in degrees Celsius.
    pub zones: Vec<(String, f64)>,
    /// The cooling devices that slow the board down at present, fans aside.
    pub throttles: Vec<String>,
}

impl ThermalStatus {
    /// The warmest zone's temperature in degrees Celsius, where there is a zone.
    pub fn hottest(&self) -> Option<f64> {
        self.zones.iter().map(|(_, celsius)| *celsius).reduce(f64::max)
    }
}

const THERMAL: &str = "/sys/class/thermal";

impl Platform {
    /// Its heat. A zone that can't be read, as one whose sensor sleeps, is left out.
    pub fn heat(&self) -> ThermalStatus {
        let mut heat = ThermalStatus { zones: Vec::new(), throttles: Vec::new() };
        for entry in self.entries(THERMAL) {
            let name = file_name(&entry);
            let read = |file: &str| self.text(&format!("{THERMAL}/{name}/{file}"));
            let number = |file: &str| read(file)?.parse::<f64>().ok();
            let kind = read("type").unwrap_or_else(|| name.clone());
            if name.starts_with("thermal_zone") {
                // Millidegrees; a Jetson's zones without a sensor say -256 °C.
                let celsius = number("temp").map(|millis| millis / 1000.0).filter(|c| *c > -100.0);
                heat.zones.extend(celsius.map(|celsius| (kind, celsius)));
            } else if name.starts_with("cooling_device")
                && !kind.contains("fan")
                && number("cur_state").is_some_and(|state| state > 0.0)
            {
                heat.throttles.push(kind);
            }
        }
        heat
    }
}

/// Pauses between jobs where a board is too hot.
#[derive(Debug)]
pub struct ThermalThrottle {
    board: Platform,
    /// In degrees Celsius; never where it is `None`.
    pause_above: Option<f64>,
    pausing: bool,
}

/// A board that was too hot must be so many degrees cooler before it goes on.
const COOLER: f64 = 5.0;

impl ThermalThrottle {
    /// Of a board, above a temperature in degrees Celsius.
    pub fn new(board: Platform, pause_above: Option<f64>) -> Self {
        Self { board, pause_above, pausing: false }
    }

    /// Whether a new job must wait now.
    pub fn pauses(&mut self) -> bool {
        let (Some(limit), Some(celsius)) =
            (self.pause_above, self.pause_above.and(self.board.heat().hottest()))
        else {
            return false;
        };
        let pausing = celsius >= if self.pausing { limit - COOLER } else { limit };
        if pausing != self.pausing {
            let change = if pausing { "new jobs wait until it is cooler" } else { "new jobs begin again" };
            log::warn!("the board has {celsius:.0} °C, [board] pause_above_c is {limit:.0}: {change}");
        }
        self.pausing = pausing;
        pausing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(root: &std::path::Path, file: &str, value: &str) {
        let path = root.join("sys/class/thermal").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }

    #[test]
    fn zones_and_throttles_are_read_and_what_is_none_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        for (zone, (kind, temperature)) in
            [("CPU-therm", "51500\n"), ("GPU-therm", "60250\n"), ("CV0-therm", "-256000\n")]
                .iter()
                .enumerate()
        {
            set(root.path(), &format!("thermal_zone{zone}/type"), &format!("{kind}\n"));
            set(root.path(), &format!("thermal_zone{zone}/temp"), temperature);
        }
        for (device, (kind, state)) in
            [("pwm-fan", "3"), ("cpufreq-cpu0", "0"), ("gpu", "2")].iter().enumerate()
        {
            set(root.path(), &format!("cooling_device{device}/type"), kind);
            set(root.path(), &format!("cooling_device{device}/cur_state"), state);
        }
        let heat = Platform::at(root.path()).heat();
        assert_eq!(heat.zones, [("CPU-therm".to_owned(), 51.5), ("GPU-therm".to_owned(), 60.25)]);
        assert_eq!(heat.throttles, ["gpu"]);
        assert_eq!(heat.hottest(), Some(60.25));
        assert_eq!(Platform::at("/nonexistent").heat().hottest(), None);
    }

    #[test]
    fn the_governor_pauses_above_its_limit_until_it_is_five_degrees_cooler() {
        let root = tempfile::tempdir().unwrap();
        let at = |celsius: u32| set(root.path(), "thermal_zone0/temp", &format!("{celsius}000"));
        let mut governor = ThermalThrottle::new(Platform::at(root.path()), Some(80.0));
        let mut seen = Vec::new();
        for celsius in [79, 80, 79, 75, 74, 79] {
            at(celsius);
            seen.push(governor.pauses());
        }
        assert_eq!(seen, [false, true, true, true, false, false]);
        at(99);
        assert!(!ThermalThrottle::new(Platform::at(root.path()), None).pauses());
    }
}
