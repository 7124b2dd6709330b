/* See stage.h. */
#include "spaced/space/stage.h"

/* The value is the stage + 1, so that an empty cell means "stays". */
#define TO(s) ((unsigned char)(STAGE_##s + 1))

static const unsigned char table[STAGE_DELETING + 1][EV_COUNT] = {
    [STAGE_NO_APP_FILE] = {[EV_BUILD] = TO(BUILDING),
			   [EV_START] = TO(APP_STARTING),
			   [EV_PUBLISHED] = TO(RUNNING),
			   [EV_HEALTHY] = TO(RUNNING), /* the release before is up again */
			   [EV_PAUSE] = TO(PAUSED),
			   [EV_DELETE] = TO(DELETING)},
    [STAGE_CONFIG_ERROR] = {[EV_BUILD] = TO(BUILDING),
			    [EV_START] = TO(APP_STARTING),
			    [EV_PUBLISHED] = TO(RUNNING),
			    [EV_HEALTHY] = TO(RUNNING),
			    [EV_PAUSE] = TO(PAUSED),
			    [EV_DELETE] = TO(DELETING)},
    [STAGE_BUILDING] = {[EV_CONFIG_ERROR] = TO(CONFIG_ERROR),
			[EV_NO_APP_FILE] = TO(NO_APP_FILE),
			[EV_BUILD_FAILED] = TO(BUILD_ERROR),
			[EV_START] = TO(APP_STARTING),
			[EV_PUBLISHED] = TO(RUNNING),
			[EV_HEALTHY] = TO(RUNNING_BUILDING), /* the old release is up again */
			[EV_PAUSE] = TO(PAUSED),
			[EV_DELETE] = TO(DELETING)},
    [STAGE_BUILD_ERROR] = {[EV_BUILD] = TO(BUILDING),
			   [EV_START] = TO(APP_STARTING),
			   [EV_PUBLISHED] = TO(RUNNING),
			   [EV_HEALTHY] = TO(RUNNING),
			   [EV_PAUSE] = TO(PAUSED),
			   [EV_DELETE] = TO(DELETING)},
    [STAGE_APP_STARTING] = {[EV_BUILD] = TO(BUILDING),
			    [EV_PUBLISHED] = TO(RUNNING),
			    [EV_HEALTHY] = TO(RUNNING),
			    [EV_START_FAILED] = TO(RUNTIME_ERROR),
			    [EV_GAVE_UP] = TO(RUNTIME_ERROR),
			    [EV_PAUSE] = TO(PAUSED),
			    [EV_DELETE] = TO(DELETING)},
    [STAGE_RUNNING] = {[EV_BUILD] = TO(RUNNING_BUILDING),
		       [EV_START] = TO(RUNNING_APP_STARTING),
		       [EV_CRASHED] = TO(APP_STARTING),
		       [EV_GAVE_UP] = TO(RUNTIME_ERROR),
		       [EV_SLEEP] = TO(SLEEPING),
		       [EV_PAUSE] = TO(PAUSED),
		       [EV_DELETE] = TO(DELETING)},
    [STAGE_RUNNING_BUILDING] = {[EV_CONFIG_ERROR] = TO(RUNNING),
				[EV_NO_APP_FILE] = TO(RUNNING),
				[EV_BUILD_FAILED] = TO(RUNNING),
				[EV_START] = TO(RUNNING_APP_STARTING),
				[EV_PUBLISHED] = TO(RUNNING),
				[EV_CRASHED] = TO(BUILDING),
				[EV_GAVE_UP] = TO(BUILDING),
				[EV_PAUSE] = TO(PAUSED),
				[EV_DELETE] = TO(DELETING)},
    [STAGE_RUNNING_APP_STARTING] = {[EV_BUILD] = TO(RUNNING_BUILDING),
				    [EV_PUBLISHED] = TO(RUNNING),
				    [EV_HEALTHY] = TO(RUNNING),
				    [EV_START_FAILED] = TO(RUNNING),
				    [EV_CRASHED] = TO(APP_STARTING),
				    [EV_GAVE_UP] = TO(APP_STARTING),
				    [EV_PAUSE] = TO(PAUSED),
				    [EV_DELETE] = TO(DELETING)},
    [STAGE_RUNTIME_ERROR] = {[EV_BUILD] = TO(BUILDING),
			     [EV_START] = TO(APP_STARTING),
			     [EV_PUBLISHED] = TO(RUNNING),
			     [EV_PAUSE] = TO(PAUSED),
			     [EV_DELETE] = TO(DELETING)},
    [STAGE_STOPPED] = {[EV_BUILD] = TO(BUILDING),
		       [EV_START] = TO(APP_STARTING),
		       [EV_PUBLISHED] = TO(RUNNING),
		       [EV_PAUSE] = TO(PAUSED),
		       [EV_DELETE] = TO(DELETING)},
    [STAGE_PAUSED] = {[EV_BUILD] = TO(BUILDING),
		      [EV_START] = TO(APP_STARTING),
		      [EV_PUBLISHED] = TO(RUNNING),
		      [EV_DELETE] = TO(DELETING)},
    [STAGE_SLEEPING] = {[EV_BUILD] = TO(BUILDING),
			[EV_START] = TO(APP_STARTING),
			[EV_PUBLISHED] = TO(RUNNING),
			[EV_HEALTHY] = TO(RUNNING),
			[EV_CRASHED] = TO(APP_STARTING), /* stopped to be started again: its storage has changed */
			[EV_WAKE] = TO(RUNNING),
			[EV_PAUSE] = TO(PAUSED),
			[EV_DELETE] = TO(DELETING)},
    [STAGE_DELETING] = {0},
};

enum space_stage stage_next(enum space_stage stage, enum stage_event ev)
{
	unsigned char to = table[stage][ev];

	return to ? (enum space_stage)(to - 1) : stage;
}

bool stage_serves(enum space_stage stage)
{
	return stage == STAGE_RUNNING || stage == STAGE_RUNNING_BUILDING || stage == STAGE_RUNNING_APP_STARTING;
}

bool stage_builds(enum space_stage stage)
{
	return stage == STAGE_BUILDING || stage == STAGE_RUNNING_BUILDING;
}

int stage_adopt(enum space_stage stage, uint32_t serving, const uint32_t *generations, size_t n)
{
	for (size_t i = 0; (stage_serves(stage) || stage == STAGE_SLEEPING) && i < n; i++)
		if (generations[i] == serving)
			return (int)i;
	return -1;
}

int crashes_note(struct crashes *c, uint64_t now)
{
	unsigned recent = 0;

	c->at[c->n++ % CRASHES_MAX] = now;
	for (unsigned i = 0; i < CRASHES_MAX && i < c->n; i++)
		recent += now - c->at[i] < CRASH_WINDOW_MS;
	return recent >= CRASHES_MAX ? -1 : 500 << recent;
}
