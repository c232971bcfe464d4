// SPDX-License-Identifier: Apache-2.0

package generate

import "testing"

func TestVolumesOfImagesOverTheSystemAreRefused(t *testing.T) {
	for path, system := range map[string]bool{
		"/": true, "/etc": true, "/etc/nginx/conf.d": true, "/usr": true, "/usr/bin": true, "/usr/lib/x": true, "/usr/local": true,
		"/usr/local/bin": true, "/bin": true, "/lib/x86_64-linux-gnu": true, "/sys": true, "/proc/sys": true, "/dev": true, "/dev/shm": true, "/run": true,
		"/var/lib/postgresql/data": false, "/data": false, "/run/mysqld": false, "/usr/share/elasticsearch/data": false, "/usr/local/tomcat/logs": false,
		"/tmp": false, "/home/app": false, "/opt/x": false,
	} {
		if systemPath(path) != system {
			t.Errorf("%s: %v", path, !system)
		}
	}
}
