"""Any system call may fail, once or from then on; each is made to, and the daemon goes on."""
