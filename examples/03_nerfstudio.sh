#!/bin/sh
# From a phone video to a trained nerfacto that saw nothing of what moves:
#
#     pip install 'segmotion-plugin[nerfstudio]'
#     sh examples/03_nerfstudio.sh VIDEO OUT
#
# ns-process-data-motion is ns-process-data with --motion-mask and its settings. To have the flag under the name you know, run
# 'segmotion nerfstudio enable' once ('disable' restores nerfstudio byte for byte).
set -eu

video=${1:?usage: sh examples/03_nerfstudio.sh VIDEO OUT}
out=${2:?usage: sh examples/03_nerfstudio.sh VIDEO OUT}

# 1. Frames, motion masks and cameras. Motion is measured at the full frame rate; 150 evenly spaced frames become images.
#    pycolmap is taken for the cameras where there is no COLMAP. Extra masks of yours (logos, a tripod): --motion-mask-extra DIR
ns-process-data-motion video --data "$video" --output-dir "$out" --num-frames-target 150 --motion-mask --sfm-tool pycolmap

# 2. Look before training: what was masked, and how many images were registered.
echo "look at $out/motion/overview.png and $out/motion/report.json"

# 3. Train on static pixels. Any method of nerfstudio takes the masks: ns-train METHOD --data "$out" segmotion-data
#    Method options go before the dataparser, dataparser options after it (--mask-policy keep-dynamic trains on the movers).
ns-train segmotion-nerfacto --data "$out" --output-dir "$out/outputs" --vis tensorboard ${NS_TRAIN_ARGS:-}

# 4. Metrics over static pixels (psnr, ssim, lpips) and over the whole image (psnr_all, …).
config=$(find "$out/outputs" -name config.yml | sort | tail -n 1)
ns-eval --load-config "$config" --output-path "$out/metrics.json"
cat "$out/metrics.json"
