"""The fastest engine settings of a machine: what is measured, how it is searched, what is kept."""
