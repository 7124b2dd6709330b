/* Bytes of apps from and to the Internet, kept across restarts: noted when an instance ends (its exit record has them). */
#include <string.h>

#include "base/log.h"
#include "spaced/space/internal.h"

void traffic_note(struct spaces *s, const char *instance, uint64_t received, uint64_t sent)
{
	char space_id[STORE_ID];
	uint32_t generation;
	struct err err = ERR_INIT;

	if ((received || sent) && instance_name_parse(instance, space_id, &generation) &&
	    store_traffic_note(s->store, space_id, generation, received, sent, &err) < 0)
		log_warn("traffic of %s: %s", instance, err.msg);
}
