/** Pure: the files that OpenIPMI's `ipmi_sim` reads (ipmi_lan(5), ipmi_sim_cmd(5)). */
import { join } from 'node:path';
import type { Lab, LabNode } from './types.js';

export const ipmiPaths = (node: LabNode) => ({
  config: join(node.dir, 'ipmi', 'lan.conf'),
  emulator: join(node.dir, 'ipmi', 'sim.emu'),
  chassis: join(node.dir, 'ipmi', 'chassis'),
  lan: join(node.dir, 'ipmi', 'lan'),
  state: join(node.dir, 'ipmi', 'state'),
  log: join(node.dir, 'ipmi', 'ipmi_sim.log'),
});

/** Config with the password in it: write it with mode 0600. */
export function lanConf(lab: Lab, node: LabNode, password: string): string {
  const paths = ipmiPaths(node);
  return `name "${node.name}"
set_working_mc 0x20
  startlan 1
    addr ${node.bmc.ip} 623
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid ${node.uuid.replaceAll('-', '')}
    lan_config_program "${paths.lan}"
  endlan
  chassis_control "${paths.chassis}"
${node.kcs ? `  serial 15 ${node.bmc.ip} 9002 codec VM\n` : ''}  sol "tcp:127.0.0.1:${node.solPort}" 115200
  startnow false
  user 1 false "" "" user 10 none md2 md5 straight
  user 2 true "${lab.bmcUser}" "${password}" admin 10 none md2 md5 straight
`;
}

/** A BMC without sensors: a management controller that answers. */
export const EMULATOR = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`;

const sh = (value: string) => `'${value.replaceAll("'", `'\\''`)}'`;

/** `ipmi_sim` calls it as `chassis get|set NAME [VALUE]…`; the lab's agent answers over its socket. */
export function chassisScript(lab: Lab, node: LabNode): string {
  return `#!/bin/sh
# get|set NAME [VALUE]... ; the agent of the lab answers with lines NAME:VALUE
printf 'chassis %s %s\\n' ${sh(node.name)} "$*" | exec socat -t 60 - UNIX-CONNECT:${sh(join(lab.runDir, 'agent.sock'))}
`;
}

/** `ipmi_sim` asks and sets the LAN parameters of the BMC by it; they are kept as files. */
export function lanScript(node: LabNode): string {
  return `#!/bin/sh
# get|set|check NAME [VALUE]...
D=${sh(join(node.dir, 'ipmi', 'lan.d'))}
op=$1; shift
known() { case $1 in ip_addr|ip_addr_src|mac_addr|subnet_mask|default_gw_ip_addr|default_gw_mac_addr|backup_gw_ip_addr|backup_gw_mac_addr) return 0;; esac; return 1; }
default() { case $1 in
  ip_addr) echo ${node.bmc.ip};; ip_addr_src) echo static;; subnet_mask) echo 255.255.255.0;;
  mac_addr) echo ${node.macs[0]!.replace(/^52:54:00:99/, '52:54:00:bb')};;
  *mac_addr) echo 00:00:00:00:00:00;; *) echo 0.0.0.0;; esac; }
case $op in
get) for n in "$@"; do known "$n" || continue; if [ -f "$D/$n" ]; then echo "$n:$(cat "$D/$n")"; else echo "$n:$(default "$n")"; fi; done;;
set) mkdir -p "$D"; while [ $# -gt 1 ]; do known "$1" && printf '%s\\n' "$2" > "$D/$1"; shift 2; done;;
esac
exit 0
`;
}
