# fish completion of vhostctl(1). The program brings its own.

VHOSTCTL_COMPLETE=fish vhostctl | source
