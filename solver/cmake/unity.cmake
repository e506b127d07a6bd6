# HiGHS is compiled sixteen files at a time: half the time, and the same code.
# `.cargo/config.toml` names this file to its build, as a toolchain file, because it takes no other settings.
set(CMAKE_UNITY_BUILD ON)
set(CMAKE_UNITY_BUILD_BATCH_SIZE 16)
