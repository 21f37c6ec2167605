import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  plugins: [react()],
  build: {
    outDir: '../dist/web',
    emptyOutDir: true,
    // The content policy allows no data: addresses.
    assetsInlineLimit: 0,
    // It is an inline script, and every browser that we serve knows modulepreload.
    modulePreload: { polyfill: false },
    target: 'es2023',
  },
});
