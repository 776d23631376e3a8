//! The JetPack release and the power mode of a Jetson.

use super::Platform;

/// A release of JetPack, NVIDIA's software for Jetson boards, and the versions that belong together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JetPack {
    /// Its name, such as `JetPack 6.2`.
    pub(crate) name: &'static str,
    /// The first version of Linux for Tegra that it has.
    l4t: [u32; 3],
    /// Its version of CUDA.
    pub(crate) cuda: &'static str,
    /// Its version of TensorRT.
    pub(crate) tensorrt: &'static str,
    /// The versions of ONNX Runtime that are reported to work with both.
    pub(crate) onnxruntime: &'static str,
    /// Whether its TensorRT runs networks on a DLA.
    pub(crate) has_dla: bool,
    /// Whether it has the DLA's compiler, `libnvdla_compiler.so`.
    pub(crate) has_dla_compiler: bool,
    /// The packages with the libraries that ONNX Runtime's providers load.
    pub(crate) packages: Packages,
}

/// The names of NVIDIA's packages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packages {
    pub(crate) cuda: &'static str,
    pub(crate) cublas: &'static str,
    pub(crate) cudnn: &'static str,
    pub(crate) tensorrt: &'static str,
    pub(crate) parser: &'static str,
}

const CUDA_12_6: Packages = Packages {
    cuda: "cuda-libraries-12-6",
    cublas: "libcublas-12-6",
    cudnn: "libcudnn9-cuda-12",
    tensorrt: "libnvinfer10",
    parser: "libnvonnxparsers10",
};
const CUDA_13_0: Packages = Packages {
    cuda: "cuda-libraries-13-0",
    cublas: "libcublas-13-0",
    cudnn: "libcudnn9-cuda-13",
    ..CUDA_12_6
};
const CUDA_13_2: Packages = Packages { cuda: "cuda-libraries-13-2", cublas: "libcublas-13-2", ..CUDA_13_0 };

const JETPACK_6_1: JetPack = JetPack {
    name: "JetPack 6.1",
    l4t: [36, 4, 0],
    cuda: "12.6",
    tensorrt: "10.3",
    onnxruntime: "1.23 to 1.25",
    has_dla: true,
    has_dla_compiler: true,
    packages: CUDA_12_6,
};
const JETPACK_7_0: JetPack = JetPack {
    name: "JetPack 7.0",
    l4t: [38, 0, 0],
    cuda: "13.0",
    tensorrt: "10.13",
    onnxruntime: "1.24 or 1.25",
    has_dla: false,
    has_dla_compiler: true,
    packages: CUDA_13_0,
};
const JETPACK_7_2: JetPack = JetPack {
    name: "JetPack 7.2",
    l4t: [39, 0, 0],
    cuda: "13.2",
    tensorrt: "10.16",
    onnxruntime: "1.26 to 1.28",
    has_dla_compiler: false,
    packages: CUDA_13_2,
    ..JETPACK_7_0
};

/// All releases since JetPack 5, oldest first.
static RELEASES: [JetPack; 8] = [
    JetPack {
        name: "JetPack 5",
        l4t: [35, 0, 0],
        cuda: "11.4",
        tensorrt: "8.5",
        onnxruntime: "1.17 or 1.18",
        has_dla: true,
        has_dla_compiler: true,
        packages: Packages {
            cuda: "cuda-libraries-11-4",
            cublas: "libcublas-11-4",
            cudnn: "libcudnn8",
            tensorrt: "libnvinfer8",
            parser: "libnvonnxparsers8",
        },
    },
    JetPack {
        name: "JetPack 6.0",
        l4t: [36, 0, 0],
        cuda: "12.2",
        tensorrt: "8.6",
        onnxruntime: "1.18 to 1.22",
        packages: Packages {
            cuda: "cuda-libraries-12-2",
            cublas: "libcublas-12-2",
            cudnn: "libcudnn8",
            tensorrt: "libnvinfer8",
            parser: "libnvonnxparsers8",
        },
        ..JETPACK_6_1
    },
    JETPACK_6_1,
    JetPack { name: "JetPack 6.2", l4t: [36, 4, 3], ..JETPACK_6_1 },
    JETPACK_7_0,
    JetPack { name: "JetPack 7.1", l4t: [38, 4, 0], ..JETPACK_7_0 },
    JETPACK_7_2,
    JetPack { name: "a JetPack newer than 7.2", l4t: [40, 0, 0], ..JETPACK_7_2 },
];

impl JetPack {
    /// Returns the release that has this version of Linux for Tegra; `None` if it is older than JetPack 5.
    fn from_l4t(version: [u32; 3]) -> Option<&'static Self> {
        RELEASES.iter().rev().find(|release| release.l4t <= version)
    }
}

/// The release of Linux for Tegra (L4T).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct L4tRelease {
    /// The version, such as `36.4.3`.
    pub(crate) version: String,
    /// Its JetPack; `None` if older than JetPack 5.
    pub(crate) jetpack: Option<&'static JetPack>,
}

impl std::fmt::Display for JetPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Platform {
    /// Reads the L4T release; `None` if this is not a Jetson.
    pub(crate) fn l4t_release(&self) -> Option<L4tRelease> {
        // # R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, …
        let text = self.text("/etc/nv_tegra_release")?;
        let line = text.lines().find(|line| line.starts_with("# R"))?;
        let major = line.trim_start_matches("# R").split(' ').next()?;
        let minor = line.split("REVISION:").nth(1)?.split(',').next()?.trim();
        let version = format!("{major}.{minor}");
        let mut numbers = version.split('.').map_while(|number| number.parse().ok());
        let jetpack = JetPack::from_l4t(std::array::from_fn(|_| numbers.next().unwrap_or(0)));
        Some(L4tRelease { version, jetpack })
    }

    /// Returns the name of the power mode, from the state and the configuration of nvpmodel.
    pub(crate) fn power_mode(&self) -> Option<String> {
        let status = self.text("/var/lib/nvpmodel/status")?;
        let id = status.trim().strip_prefix("pmode:")?.trim_start_matches('0');
        let id = if id.is_empty() { "0" } else { id };
        let names = self.text("/etc/nvpmodel.conf").unwrap_or_default();
        // < POWER_MODEL ID=0 NAME=MAXN >
        let name = names.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("< POWER_MODEL ")?;
            let mut fields = rest.split_whitespace();
            (fields.next()? == format!("ID={id}")).then_some(())?;
            fields.next()?.strip_prefix("NAME=").map(str::to_owned)
        });
        Some(name.unwrap_or_else(|| format!("number {id}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_of_l4t_has_its_jetpack() {
        for (version, name) in [
            ([32, 7, 1], None),
            ([35, 4, 1], Some("JetPack 5")),
            ([36, 3, 0], Some("JetPack 6.0")),
            ([36, 4, 0], Some("JetPack 6.1")),
            ([36, 4, 3], Some("JetPack 6.2")),
            ([36, 5, 0], Some("JetPack 6.2")),
            ([38, 2, 1], Some("JetPack 7.0")),
            ([38, 4, 0], Some("JetPack 7.1")),
            ([39, 2, 0], Some("JetPack 7.2")),
            ([41, 0, 0], Some("a JetPack newer than 7.2")),
        ] {
            assert_eq!(JetPack::from_l4t(version).map(|jetpack| jetpack.name), name, "{version:?}");
        }
        assert!(RELEASES.is_sorted_by_key(|release| release.l4t));
    }
}
