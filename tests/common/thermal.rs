//! The thermal sensor of a board, as files.

use std::path::Path;

/// Sets the temperature of the board under this root, in °C.
pub fn set_temperature(board: &Path, celsius: u32) {
    let zone = board.join("sys/class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).unwrap();
    std::fs::write(zone.join("type"), "gpu-thermal\n").unwrap();
    std::fs::write(zone.join("temp"), format!("{celsius}000\n")).unwrap();
}

/// Returns configuration that pauses jobs while the board under this root is at 80 °C or more.
pub fn pause_config(board: &Path) -> String {
    format!("[board]\nroot = {:?}\npause_above_c = 80", board.display().to_string())
}
