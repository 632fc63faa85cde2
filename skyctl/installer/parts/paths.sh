# Where everything of ours is on a host.

home=/opt/skypanel-worker
venv=$home/venv
runner=$home/run        # starts the agent by whichever Python there is
applied=$home/applied   # there while the agent that runs is the one installed last
packages=$home/packages # the packages that the script has installed, Docker's not among them
joined=$home/joined     # there if the script has let this host join its swarm
config_folder=/etc/skypanel-worker
config_file=$config_folder/config.json
ca_file=$config_folder/ca.pem
release_key_file=$config_folder/release.pub
state_folder=/var/lib/skypanel-worker
runtime_folder=/run/skypanel-worker
lock_folder=/run/skypanel-worker-install
units=/etc/systemd/system
unit_file=$units/skypanel-worker.service
command_file=/usr/local/bin/skyagent
uninstaller=/usr/local/bin/skypanel-worker-uninstall
halves="$venv.new $config_file.new $ca_file.new $release_key_file.new $unit_file.new $runner.new $command_file.new $uninstaller.new" # there while they are made
account=skyagent # the system user of the agent, where there is one
account_comment='made for the agent of skyctl'
log=/var/log/skypanel-worker-install.log

