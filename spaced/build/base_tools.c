/* See base_tools.h. */
#include "spaced/build/base_tools.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"

int base_resolve(const char *state, const char *wish, char id[BASE_ID], struct err *err)
{
	char name[BASE_NAME_MAX + 1];

	id[0] = '\0';
	if (*wish)
		snprintf(name, sizeof name, "%s", wish);
	else
		base_default(state, name);
	if (strcmp(name, BASE_HOST) == 0 || base_newest(state, name, id))
		return 0;
	return err_text(err, ENOENT, "the base `%s` is not on this machine: ask the operator (spacectl base list)",
			name);
}

int base_tools(const char *state, const char *id, struct tools *t, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;

	*t = (struct tools){0};
	if (base_record_read(state, id, &text, err) < 0)
		return -1;
	json_t *j = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
	bool ok = tools_from_json(json_object_get(j, "tools"), t);
	json_decref(j);
	return ok ? 0 : err_text(err, EINVAL, "the record of base %s is damaged", id);
}
