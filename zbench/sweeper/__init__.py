"""The sweeper: ties space, search, executor and store together. `plan` decides, `sweep` runs, `conduct` is the rim."""
