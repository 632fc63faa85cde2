#!/bin/sh
# Makes this host a worker: Docker, the agent as the systemd unit skypanel-worker, and the swarm where there is one.
# It may run again at any time: what is in place stays as it is. It holds secrets: keep it as you keep a password.
# Cut off anywhere it does nothing: all of it is functions, and the last line calls them.
# shellcheck disable=SC2034 # not every part uses all that is named at the top
set -eu

unset config swarm_join content # where the caller exports these names, what is put into them would be exported too
agent_version=@@agent_version
agent_sha256=@@agent_sha256
requirements_sha256=@@requirements_sha256
config=@@config
swarm_join=@@swarm_join
swarm_address=@@swarm_address
worker_id=@@worker_id
invitation=@@invitation # the SHA-256 of the token, by which the manager knows it
api_url=@@api_url
manager_host=@@manager_host
manager_port=@@manager_port
manager_path=@@manager_path
next_link=@@next_link # the command that makes another link, where the script came by one
ca_certificate=@@ca_certificate
release_key=@@release_key # by which alone a newer agent may be signed

