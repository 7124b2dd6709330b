/* The start of one instance, in the process that becomes its monitor: a fork of the spawner, or the process that has waited
 * with a shell (shells.h). Internal to the spawner. */
#ifndef SANDBOX_START_H
#define SANDBOX_START_H

#include "sandbox/egress_inside.h"
#include "sandbox/instance.h"
#include "sandbox/sandbox.h"

struct start {
	struct instance *i;
	struct sandbox_spec spec;
	struct sandbox_sources src;
	int stdio[2]; /* stdin, stdout or -1 */
	int log_pipe[2];
	int netns;   /* made ahead, or -1 */
	int channel; /* to the spawner: monitor.h */
	struct egress_policy policy;
	struct egress_inside inside;
};

/* Whether the spec stands on the host's own /usr. */
bool start_on_host(const struct sandbox_spec *spec);
/* Of `i` it takes the volumes, the skeleton and the egress of its spawner, its note, and the descriptors of the log, the
 * listener and the record. Never returns: becomes the monitor, or says MONITOR_FAILED and ends. */
_Noreturn void start_run(struct start *st);

#endif
